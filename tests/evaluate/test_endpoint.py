"""A model that is known by its server only."""

from pathlib import Path

import pytest
from fake_judge import fake_judge, says

from rilbench.api_keys import ENDPOINT_KEY
from rilbench.errors import UserError
from rilbench.evaluate.endpoint import find_endpoint
from rilbench.evaluate.kit_session import Kit
from rilbench.evaluate.options import EvalOptions
from rilbench.evaluate.run import evaluate_many
from rilbench.ledger import Evaluation, Ledger

KEY = "sk-not-to-be-seen"


def test_an_address_names_the_model_or_its_server_does() -> None:
    found = find_endpoint("org/some-vlm@https://host:8000/v1/chat/completions")
    assert (found.urls, found.model) == (("https://host:8000/v1",), "org/some-vlm")
    assert found.checkpoint.labels.student == "some-vlm"
    with fake_judge(lambda _: says("A"), ["listed"]) as server:
        assert find_endpoint(f"{server.url}/").model == "listed"
        assert find_endpoint(server.url).checkpoint != find_endpoint(f"x@{server.url}").checkpoint


@pytest.mark.parametrize(
    "option",
    ["host:8000", "ftp://host/v1", "https://", "sk-1@b@http://h/v1", "http://me:pass@host/v1"],
)
def test_an_address_that_is_none(option: str) -> None:
    with pytest.raises(UserError, match="is not understood; give URL or MODEL@URL"):
        find_endpoint(option)


@pytest.mark.integration
def test_without_a_checkpoint(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its key goes to the server and nowhere else."""
    monkeypatch.setenv(ENDPOINT_KEY, KEY)
    with fake_judge(lambda _: says("A. red")) as server:
        plan = EvalOptions(
            "nano",
            data,
            tmp_path / "work",
            tmp_path / "ledger.db",
            endpoint=f"org/some-vlm@{server.url}",
            benchmarks=("MMStar",),
        )
        (found,) = evaluate_many([], plan)
        assert server.keys == {f"Bearer {KEY}"}
        assert {body["model"] for body in server.seen} == {"org/some-vlm"}
    assert (found.path, found.student, found.method) == ("org/some-vlm", "some-vlm", "base")
    assert found.scores[0].value == 25.0
    with Ledger(tmp_path / "ledger.db") as ledger:
        assert (
            ledger.evaluations()[0].settings["generation"]["server"].startswith("org/some-vlm at")
        )
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or KEY.encode() not in file.read_bytes(), file


@pytest.mark.integration
def test_a_model_exchanged_behind_the_address_does_not_get_the_old_score(
    data: Path, tmp_path: Path
) -> None:
    """Nor is the old one asked again when it comes back."""
    said = "A. red"
    with fake_judge(lambda _: says(said), ["vlm"]) as server, Kit(tmp_path / "kit.log") as kit:
        plan = EvalOptions(
            "nano",
            data,
            tmp_path / "work",
            tmp_path / "ledger.db",
            endpoint=server.url,
            benchmarks=("MMStar",),
        )

        def asks(number: int) -> Evaluation:
            before = len(server.questions)
            (found,) = evaluate_many([], plan, kit=kit)
            assert len(server.questions) == before + number
            return found

        first = asks(4)
        assert "stored_responses" not in first.settings
        again = asks(0)
        assert again.fingerprint == first.fingerprint
        assert again.settings["stored_responses"]["old"] == 4
        assert "0 are answered otherwise now" in again.settings["identity"]
        said = "B. green"
        other = asks(4)
        assert other.fingerprint != first.fingerprint
        assert "another model is served" in other.settings["identity"]
        assert {s.extracted for s in other.samples} == {"B"}
        said = "A. red"
        assert asks(0).fingerprint == first.fingerprint
