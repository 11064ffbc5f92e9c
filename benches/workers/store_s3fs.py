"""The same with a store through fsspec's s3fs, each in the way that suits it best: ``store_s3fs.py TASK``."""

import s3fs
import store_tasks as tasks

store = s3fs.S3FileSystem(use_listings_cache=False)


def warm() -> int:
    return int(store.info(f"{tasks.BUCKET}/{tasks.LARGE}")["size"])


def names() -> int:
    return len(store.glob(f"{tasks.BUCKET}/listed/*.jpg", detail=True))


def images() -> int:
    size = 0
    for start in range(0, len(tasks.IMAGES), tasks.AT_ONCE):
        keys = [f"{tasks.BUCKET}/{key}" for key in tasks.IMAGES[start : start + tasks.AT_ONCE]]
        size += sum(map(len, store.cat(keys).values()))
    return size


def ranges() -> int:
    with store.open(f"{tasks.BUCKET}/{tasks.LARGE}", block_size=tasks.BLOCK_BYTES, cache_type="none") as file:
        return sum(map(len, iter(lambda: file.read(tasks.BLOCK_BYTES), b"")))


def put() -> int:
    data = bytes(tasks.SHARD_BYTES)
    for key in tasks.SHARDS:
        store.pipe_file(f"{tasks.BUCKET}/{key}", data, mode="create")
    return len(tasks.SHARDS)


def remove() -> int:
    store.rm([f"{tasks.BUCKET}/{key}" for key in tasks.SHARDS])
    return 0


tasks.run({"warm": warm, "list": names, "images": images, "ranges": ranges, "put": put, "remove": remove})
