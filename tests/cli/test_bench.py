"""`casdk bench`: its figures agree with each other."""


def test_figures(command, url):
    ran = command("bench", url, "--seconds", "0.2", "--batch-size", "8", "--prefetch", "2", "--json")
    assert ran.code == 0
    figures = ran.json
    assert figures["width"] == 512
    assert (figures["batch_size"], figures["prefetch"]) == (8, 2)
    assert figures["items"] > 0
    assert figures["items_per_second"] == figures["items"] / figures["seconds"]
    latency = figures["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"]


def test_in_words(command, url):
    ran = command("bench", url, "--seconds", "0.1")
    assert ran.code == 0
    assert "one sentence: p50 " in ran.out
    assert "sentences/s" in ran.out


def test_an_option_that_cannot_work(command, url):
    assert command("bench", url, "--batch-size", "0").code == 2
