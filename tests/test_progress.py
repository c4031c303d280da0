"""What is told of progress where there is no terminal."""

import pytest

from bantam import progress


def test_time_left_is_told_by_the_pace_since_it_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with progress.bar("train") as advance:
        for now[0], done in ((100.0, 60), (110.0, 70), (120.0, 80), (121.0, 81)):
            advance(done, 200, "loss 2.5")  # 60 of them were done before
    told = capsys.readouterr().err.splitlines()
    assert told == ["train: 60/200 loss 2.5", "train: 80/200 (2 min left) loss 2.5"]
