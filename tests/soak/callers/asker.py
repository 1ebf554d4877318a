# SPDX-License-Identifier: MIT
"""python -m tests.soak.callers.asker DOOR PLACE COUNT UID: asks honestly, and says how long each answer took.

JSON: `seconds` of each answer, from connect(2) to the last byte; `failed`, what went wrong with the others.
"""

import json
import os
import sys
import time

from tests.soak.callers.doors import doors

PAUSE = 0.001
"""Between two questions: the asker is one of many clients, and not a load of its own."""


def main() -> None:
    name, place, count, uid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    door = doors()[name]._replace(place=place)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    seconds, failed = [], []
    kept = door.connect() if door.keeps else None
    for _ in range(count):
        began = time.perf_counter()
        try:
            if kept is not None:
                door.ask(kept)
            else:
                with door.connect() as sock:
                    door.ask(sock)
        except OSError as error:
            failed.append(f"{type(error).__name__}: {error}")
        else:
            seconds.append(time.perf_counter() - began)
        time.sleep(PAUSE)
    if kept is not None:
        kept.close()
    print(json.dumps({"seconds": seconds, "failed": failed}))


if __name__ == "__main__":
    main()
