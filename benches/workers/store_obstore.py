"""What bulk runs do with a store, through obstore: ``store_obstore.py TASK``."""

import sys

import store_tasks as tasks
from casdk.bulk.objects import Objects
from casdk.bulk.stores import StoredImage, downloaded, find_objects, open_object

URL = f"s3://{tasks.BUCKET}"


def warm() -> int:
    return len(find_objects(f"{URL}/{tasks.LARGE}"))


def names() -> int:
    return len(find_objects(f"{URL}/listed/*.jpg"))


def images() -> int:
    return sum(len(image.source) for image in downloaded([[StoredImage(f"{URL}/{key}") for key in tasks.IMAGES]]))


def ranges() -> int:
    with open_object(f"{URL}/{tasks.LARGE}", tasks.BLOCK_BYTES) as file:
        return sum(map(len, iter(lambda: file.read(tasks.BLOCK_BYTES), b"")))


def put() -> int:
    objects, data = Objects(URL), bytes(tasks.SHARD_BYTES)
    for key in tasks.SHARDS:
        assert objects.put(key, data, None) is not None
    return len(tasks.SHARDS)


def remove() -> int:
    Objects(URL).delete(*tasks.SHARDS)
    return 0


def fill() -> None:
    """Make the objects of all tasks."""
    objects = Objects(URL)
    for key in tasks.LISTED:
        objects.put(key, b"", None)
    for key in tasks.IMAGES:
        objects.put(key, bytes(tasks.IMAGE_BYTES), None)
    objects.put(tasks.LARGE, bytes(tasks.LARGE_BYTES), None)


if sys.argv[1] == "fill":
    fill()
else:
    tasks.run({"warm": warm, "list": names, "images": images, "ranges": ranges, "put": put, "remove": remove})
