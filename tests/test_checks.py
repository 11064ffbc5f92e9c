"""Checks of the fields of settings; `test_config.py` and `test_servers.py` have what each field takes."""

import msgspec
import numpy as np
import pytest
from casdk import ConfigError
from casdk._checks import MOST_SECONDS, check_count, check_number, check_rate, check_seconds


class Setting(msgspec.Struct):
    value: object


@pytest.mark.parametrize(
    ("check", "value", "said"),
    [
        (check_number, "1", "must be a number, not '1'"),
        (check_number, True, "must be a number, not True"),
        (check_number, float("nan"), "must be a finite number, not nan"),
        (check_seconds, 0, "must be more than 0 seconds, not 0"),
        (check_seconds, 2 * MOST_SECONDS, "must be at most 1e\\+06 seconds, not 2000000"),
        (check_count, 1.5, "must be an int, not 1.5"),
        (check_count, 0, "must be at least 1, not 0"),
        (check_rate, 0, "must be more than 0 a second, not 0"),
        (check_rate, 1e12, "must be from 1e-06 to 1e\\+09 a second"),
    ],
)
def test_the_sentence_names_the_field_and_its_value(check, value, said):
    with pytest.raises(ConfigError, match=f"^Setting: value {said}"):
        check(Setting(value), "value")


def test_a_number_of_numpys_becomes_pythons():
    setting = Setting(np.float32(1.5))
    assert check_number(setting, "value") == 1.5
    assert type(setting.value) is float
