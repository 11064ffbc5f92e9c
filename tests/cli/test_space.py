"""`casdk space`, and `--expect-space` of the other commands."""


def test_space(command, url):
    printed = command("space", url)
    assert printed.code == 0
    assert command("space", url, "--json").json == {"space": printed.out.strip()}
    assert command("encode", url, "a red apple", "--expect-space", printed.out).code == 0
    other = command("space", url, "--model", "other", "--expect-space", printed.out)
    assert (other.code, other.out) == (2, "")
    assert "is not of the space that expect_space names" in other.err
    assert command("profile", url, "--expect-space", "casdk1").code == 2
