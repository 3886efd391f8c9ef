#!/usr/bin/python3
"""What reading a backup asks of the store after many incremental ones: what ./dev bench decay runs, on the image of backup.py.

  decay.py [MEGABYTES [BACKUPS [WRITES]]]
"""

import json
import shutil
import sys

import backup
from backup import MIB, WORK


def main() -> None:
    given = [int(word) for word in sys.argv[1:]]
    megabytes, backups, writes = [*given, *(1500, 1000, 200)[len(given) :]]
    size = backup.prepare(megabytes)
    store = backup.fresh("convoy-store")
    shutil.copyfile(WORK / "full.img", WORK / "decay.img")
    words = ("decay.img", store, str(backups), str(writes), "1")
    result = json.loads(backup.run(backup.ENGINE.with_name("backup_decay"), *words)[1])
    (WORK / "decay.img").unlink()
    print(f"image of {size / MIB:.0f} MiB, {backups} incremental backups, {writes} random writes of 4 KiB before each; the last one stays")
    print(f"stored by each: {result['stored by each'] / MIB:.2f} MiB; packs of the last one: {result['packs']}")
    print(f"{'':16}" + "".join(f"{title:>28}" for title in ("after them", "after gc", "first backup of the same")))
    for what in result["fresh"]:
        cells = [result[when][what] for when in ("after", "after gc", "fresh")]
        least = cells[-1][0]
        print(f"{what:16}" + "".join(f"{count:8} requests {read / MIB:6.0f} MiB{count / least:5.1f}" for count, read in cells))


if __name__ == "__main__":
    main()
