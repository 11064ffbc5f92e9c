"""The command line with several servers: `URL,URL`."""

from casdk.testing import FaultServer


def test_several_servers_share_the_work(command):
    with FaultServer(width=8) as one, FaultServer(width=8) as other:
        urls = f"{one.address('grpc')},{other.address('http')}"
        ran = command("encode", urls, "a red apple", "a green pear", "--batch-size", 1, "--json")
        assert (ran.code, len(ran.lines)) == (0, 2)
        assert [server.counters.requests for server in (one, other)] == [3, 3]  # two of them ask for its space
        profiles = command("profile", urls, "--json").lines
        assert [profile["address"] for profile in profiles] == urls.split(",")
        assert command("profile", urls).out.count("Roundtrip") == 2
        refused = command("index", urls, "a red apple")
        assert refused.code == 2
        assert "an index lives on one server" in refused.err


def test_an_index_lives_on_the_server_that_is_named(command):
    with FaultServer(width=8) as one, FaultServer(width=8) as other:
        urls, has_it = f"{one.address('grpc')},{other.address('http')}", ("--index-on", other.address("http"))
        assert command("index", urls, "a red apple", "a green pear", *has_it, "--json").lines == [{"indexed": 2}]
        [found] = command("search", urls, "a red apple", "--limit", 1, *has_it, "--json").lines
        assert [match["text"] for match in found["matches"]] == ["a red apple"]
        assert not one.counters.requests
        refused = command("search", urls, "a red apple")
        assert refused.code == 2
        assert "--index-on" in refused.err


def test_the_doctor_looks_at_each_of_several_servers(command):
    with FaultServer() as one, FaultServer() as other:
        other.down()
        urls = f"{one.address('grpc')},{other.address('grpc')}"
        ran = command("doctor", urls, "--json")
        assert ran.code == 4
        found = [(finding["address"], finding["step"], finding["ok"]) for finding in ran.lines]
        assert (one.address("grpc"), "encode", True) in found
        assert found[-1] == (other.address("grpc"), "tcp", False)
        assert command("doctor", urls).out.splitlines()[0] == one.address("grpc")
