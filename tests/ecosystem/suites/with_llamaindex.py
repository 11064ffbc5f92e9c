"""LlamaIndex: `ClipEmbedding` embeds texts and images, serves an index, and can be pickled."""

import pickle
from io import BytesIO

import numpy as np
from casdk import Text
from casdk.interop.llamaindex import ClipEmbedding
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.schema import TextNode


def rows(client, texts):
    return client.encode([Text(text) for text in texts])


def test_texts_and_queries(client, texts):
    model = ClipEmbedding(client, parameters={"model_name": "ViT-B-32"})
    assert isinstance(model, BaseEmbedding)
    assert model.model_name == "ViT-B-32"
    model = ClipEmbedding(client)
    np.testing.assert_array_equal(model.get_text_embedding_batch(texts), rows(client, texts))
    np.testing.assert_array_equal(model.get_text_embedding("cat.png"), rows(client, ["cat.png"])[0])
    np.testing.assert_array_equal(model.get_query_embedding("cat.png"), rows(client, ["cat.png"])[0])


async def test_asynchronously(client, texts, picture):
    model = ClipEmbedding(client)
    np.testing.assert_array_equal(await model.aget_text_embedding_batch(texts), rows(client, texts))
    np.testing.assert_array_equal(await model.aget_text_embedding(texts[1]), rows(client, texts[1:2])[0])
    np.testing.assert_array_equal(await model.aget_query_embedding(texts[1]), rows(client, texts[1:2])[0])
    np.testing.assert_array_equal(await model.aget_image_embedding(str(picture)), client.encode([picture])[0])


def test_images(client, picture):
    model = ClipEmbedding(client)
    found = model.get_image_embedding_batch([str(picture), BytesIO(picture.read_bytes())])
    np.testing.assert_array_equal(found, client.encode([picture, picture]))
    np.testing.assert_array_equal(model.get_image_embedding(str(picture)), found[0])


def test_an_index(client, texts):
    index = VectorStoreIndex([TextNode(text=text) for text in texts], embed_model=ClipEmbedding(client))
    [nearest] = index.as_retriever(similarity_top_k=1).retrieve("a control room")
    assert nearest.text == "a control room"


def test_it_travels(client, texts):
    model = pickle.loads(pickle.dumps(ClipEmbedding(client, batch_size=2)))
    np.testing.assert_array_equal(model.get_text_embedding(texts[0]), rows(client, texts[:1])[0])
