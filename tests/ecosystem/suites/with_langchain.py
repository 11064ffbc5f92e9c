"""LangChain: `ClipEmbeddings` passes LangChain's own tests, and serves vector stores and retrievers."""

import os

import numpy as np
from casdk import Client, Text
from casdk.interop.langchain import ClipEmbeddings
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests


class TestStandard(EmbeddingsIntegrationTests):
    """LangChain's own tests of every Embeddings."""

    @property
    def embeddings_class(self):
        return ClipEmbeddings

    @property
    def embedding_model_params(self):
        return {"client": Client(os.environ["CASDK_SERVER"])}


def rows(client, texts):
    return client.encode([Text(text) for text in texts])


def test_documents_and_queries(client, texts):
    embeddings = ClipEmbeddings(client, batch_size=2)
    assert isinstance(embeddings, Embeddings)
    found = embeddings.embed_documents(texts)
    assert type(found[0][0]) is float
    np.testing.assert_array_equal(found, rows(client, texts))
    np.testing.assert_array_equal(embeddings.embed_query("cat.png"), rows(client, ["cat.png"])[0])
    assert embeddings.embed_documents([]) == []


async def test_asynchronously(client, texts):
    embeddings = ClipEmbeddings(client)
    np.testing.assert_array_equal(await embeddings.aembed_documents(texts), rows(client, texts))
    np.testing.assert_array_equal(await embeddings.aembed_query(texts[0]), rows(client, texts[:1])[0])


def test_images(client, picture):
    found = ClipEmbeddings(client).embed_image([str(picture), picture.read_bytes()])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], client.encode([picture])[0])


def test_a_vector_store(client, texts):
    store = InMemoryVectorStore.from_texts(texts, ClipEmbeddings(client))
    [nearest] = store.similarity_search("a control room", k=1)
    assert nearest.page_content == "a control room"


async def test_a_retriever(client, texts):
    retriever = InMemoryVectorStore.from_texts(texts, ClipEmbeddings(client)).as_retriever(search_kwargs={"k": 1})
    [nearest] = await retriever.ainvoke("with pain")
    assert nearest.page_content == "with pain"
