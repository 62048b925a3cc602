from rilbench.train.pipeline.trainer_process import Tail


def test_tail_gives_whole_new_lines_once(tmp_path):
    file = tmp_path / "m.jsonl"
    file.write_text('{"step": 1}\n')
    tail = Tail(file)
    assert tail.new_lines() == []
    with file.open("a") as out:
        out.write('{"step": 2}\n{"step"')
    assert tail.new_lines() == [{"step": 2}]
    with file.open("a") as out:
        out.write(": 3}\n")
    assert tail.new_lines() == [{"step": 3}]
