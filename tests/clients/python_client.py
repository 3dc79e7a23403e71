"""redis-py against tallyd: python_client.py SOCKET. Run by run.py."""
import sys

import redis


def main(path):
    client = redis.Redis(unix_socket_path=path, client_name="python-test")
    assert client.ping() is True
    assert client.info()["redis_mode"] == "standalone"
    assert client.client_getname() == "python-test"

    with client.pipeline(transaction=False) as pipeline:
        for _ in range(150):
            pipeline.execute_command("CL.THROTTLE", "python", 99, 1, 3600)
        for _ in range(150):
            pipeline.execute_command("TALLY.TAKE", "login", "python")
        replies = pipeline.execute()
    throttled, taken = replies[:150], replies[150:]
    assert [r[0] for r in throttled] == [0] * 100 + [1] * 50, throttled
    assert throttled[0] == [0, 100, 99, -1, 3600], throttled[0]
    assert [(r[0], r[5]) for r in taken] == [(0, 0)] * 100 + [(1, 1)] * 50, taken
    assert [r[2] for r in taken[:100]] == list(range(99, -1, -1)), taken

    key = bytes(range(256))
    assert client.execute_command("TALLY.TAKE", "api", key, 40)[:3] == [0, 100, 60]
    assert client.execute_command("TALLY.GIVE", "api", key, 10)[:3] == [0, 100, 70]
    assert client.execute_command("TALLY.PEEK", "api", key)[:3] == [0, 100, 70]
    assert client.execute_command("TALLY.TAKE", "api", key, 71)[:3] == [1, 100, 70]
    assert client.execute_command("TALLY.RESET", "api", key) in (b"OK", True)
    assert client.execute_command("TALLY.PEEK", "api", key)[:3] == [0, 100, 100]
    assert client.execute_command("TALLY.TAKE", "watched", "k")[5] == 0
    assert client.execute_command("TALLY.TAKE", "watched", "k")[0::5] == [0, 4]
    assert client.delete("python", "never-seen") == 1
    explained = client.execute_command("TALLY.EXPLAIN", "api", key)
    assert b"bound" in explained[0::2] and b"reason" in explained[0::2], explained
    try:
        client.execute_command("TALLY.TAKE", "lgoin", "k")
        raise AssertionError("an unknown rule was taken from")
    except redis.exceptions.ResponseError as error:
        assert str(error) == "NORULE no rule 'lgoin'; did you mean 'login'?", error
    try:
        client.execute_command("CL.THROTTLE", "k", 1, 0, 1)
        raise AssertionError("a count of 0 was taken")
    except redis.exceptions.ResponseError as error:
        assert str(error) == "value is not an integer or out of range: count must be 1 or more, got '0'", error
    client.close()
    print(f"redis-py {redis.__version__}: 150 + 150 in one pipeline, errors, binary keys")


main(sys.argv[1])
