"""The findings of the doctor."""

from casdk.cli.exits import Exit
from casdk.cli.trouble import Finding, TroubleError


def test_trouble_is_a_finding_of_the_step_under_way():
    found = TroubleError("nobody\n  listens", "start it", exit=Exit.UNREACHABLE).finding("tcp")
    assert found == Finding(step="tcp", ok=False, detail="nobody listens", cure="start it", exit=Exit.UNREACHABLE)


def test_trouble_may_belong_to_another_step():
    assert TroubleError("refused", "give a token", step="auth").finding("encode").step == "auth"


def test_a_step_that_went_well_has_no_cure():
    assert Finding(step="dns", ok=True, detail="::1").exit is Exit.OK
