"""The commands refuse wrong values of options, and unknown options."""

import pytest


@pytest.mark.parametrize(
    "words",
    [
        ("search", "a", "--limit", "0"),
        ("encode", "--batch-size", "0"),
        ("encode", "--batch-size", "many"),
    ],
)
def test_a_size_is_a_number_of_items(command, url, words):
    ran = command(words[0], url, *words[1:])
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert words[-2] in ran.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["encode", "URL", "--erors", "skip"], "unknown option --erors. Did you mean --errors?"),
        (["encode", "URL", "--erors=skip"], "unknown option --erors=skip. Did you mean --errors?"),
        (["index", "URL", "photos", "--batchsize", "3"], "unknown option --batchsize. Did you mean --batch-size?"),
        (["search", "URL", "a cat", "--limt", "3"], "unknown option --limt. Did you mean --limit?"),
        (["rank", "--jsn", "URL", "a", "b"], "unknown option --jsn. Did you mean --json?"),
        (["profile", "URL", "--tiemout", "3"], "Did you mean --timeout?"),
        (["bench", "URL", "--second", "3"], "Did you mean --seconds?"),
        (["doctor", "URL", "--servername", "x"], "Did you mean --server-name?"),
        (["serve", "--fetch-urls"], "Did you mean --fetch-uris?"),
        (["encod", "URL"], 'Did you mean "encode"?'),
        (["encode", "URL", "--errors", "skpi"], 'Did you mean "skip"?'),
        (["--vesion"], "unknown option --vesion. Did you mean --version?"),
        (["encode", "URL", "--nonsense"], "unknown option --nonsense. (`casdk"),
    ],
)
def test_what_was_meant(command, url, words, meant):
    ran = command(*(url if word == "URL" else word for word in words))
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
    assert meant in ran.err
