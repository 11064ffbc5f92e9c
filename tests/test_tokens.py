"""Which strings can be a credential."""

import pytest
from casdk import ConfigError
from casdk._transport.tokens import check_token, read_credential


def test_a_credential_is_a_token_a_callable_or_a_header():
    assert read_credential({"Authorization": "token"}) == read_credential("token") == "token"
    assert read_credential({}) is read_credential(None) is None
    assert read_credential(print) is print
    with pytest.raises(ConfigError, match="the one that is read is 'Authorization'"):
        read_credential({"authorization": "token"})


def test_a_token_does_not_show_itself():
    assert repr(check_token("s3cret")) == "***"


@pytest.mark.parametrize("token", ["", "a\nb", "\xe9"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token):
    with pytest.raises(ConfigError, match="must be printable ASCII and not empty") as refused:
        check_token(token)
    assert repr(token) not in str(refused.value)
