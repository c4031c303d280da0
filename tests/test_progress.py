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


def test_each_piece_of_work_has_its_own_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    steps = [
        (20.0, 0, 40, "ours"),  # 1 row a second
        (40.0, 20, 40, "ours"),
        (60.0, 40, 40, "ours"),
        (700.0, 4, 40, "base"),  # after a wait
        (704.0, 20, 40, "base"),
        (716.0, 30, 40, "base"),
        (1000.0, 40, 60, "few shots"),  # more were done than in all before
        (1016.0, 48, 60, "few shots"),
    ]
    with progress.bar("judge") as advance:
        for now[0], done, total, note in steps:
            advance(done, total, note)
    assert capsys.readouterr().err.splitlines() == [
        "judge: 0/40 ours",
        "judge: 20/40 (20 s left) ours",
        "judge: 40/40 (0 s left) ours",
        "judge: 4/40 base",
        "judge: 30/40 (6 s left) base",
        "judge: 40/60 few shots",
        "judge: 48/60 (24 s left) few shots",
    ]


def test_without_a_known_end_no_time_left_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    with progress.bar("run") as advance:
        advance(1, 0, "")
        advance(2, 0, "")
    assert capsys.readouterr().err.splitlines() == ["run: 1", "run: 2"]
