#!/usr/bin/python3
"""What machine.py promises, tried on real machines: User Mode Linux, and the host kind inside it.

Takes under a minute. Each boot costs about two seconds, so a test puts as much as it can in one.
"""
# budget: 540

import contextlib
import fcntl
import hashlib
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import unittest
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path

import cpu_slot
import kernel_log

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
MACHINE = str(HERE / "machine.py")

# The disks of UML discard at most 32 KiB at once, of which the thin pool rightly complains.
NO_PASSDOWN = "max discard sectors smaller than a block: Disabling discard passdown"


def session_members(leader: int) -> list[int]:
    """The living processes of a session."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = stat.read_text().rpartition(") ")[2].split()[:4]
            if int(session) == leader and state != "Z":
                members.append(int(stat.parent.name))
    return members


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


class MachineTest(unittest.TestCase):
    """Gives each test a directory of its own, and checks that no run leaves anything behind."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory(prefix="machine-test-")
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name).resolve()
        self.out = self.directory / "out"
        self.temporary = self.directory / "tmp"
        self.temporary.mkdir()

    def tearDown(self) -> None:
        self.assertEqual(list(self.temporary.iterdir()), [])

    def start(self, *arguments: str, **options) -> subprocess.Popen:
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        return subprocess.Popen(
            [sys.executable, MACHINE, "run", "--kind", "uml", "--out", str(self.out), *arguments],
            env=os.environ | {"TMPDIR": str(self.temporary), "CONVOY_TEST": "a b"},
            cwd=self.directory,
            **options,
        )

    def run_machine(self, *arguments: str) -> subprocess.CompletedProcess:
        with self.start("--timeout", "60", *arguments) as process:
            stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)

    def run_script(self, script: str, *options: str) -> subprocess.CompletedProcess:
        return self.run_machine(*options, "--", "bash", "-c", script)

    def assert_ended(self, result: subprocess.CompletedProcess, status: int, said: str) -> None:
        self.assertIn(said, result.stderr)
        self.assertEqual(result.returncode, status, result.stderr)

    def find_uml(self) -> int:
        """The process id of the machine that this test runs."""
        found: list[int] = []

        def look() -> bool:
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    words = path.read_bytes().split(b"\0")
                    leads = os.getsid(int(path.parent.name)) == int(path.parent.name)
                    ours = any(str(self.temporary).encode() in word for word in words)
                    if words[0].endswith(b"linux.uml") and leads and ours:
                        found.append(int(path.parent.name))
            return bool(found)

        wait_until(look, "the machine's process")
        return found[0]


class WhatTheCommandGets(MachineTest):
    SCRIPT = r"""
        printf '%s\0' "$@" >"$VM_OUT/arguments"
        pwd
        echo "$VM_BOOT $CONVOY_TEST $VM_OUT ${PATH%%:*}"
        cat; echo "end of stdin"
        blockdev --getsize64 $DISK_DATA $DISK_META $DISK_ROOT
        modprobe -a dm-flakey dm-log-writes
        dmsetup targets | grep -cE 'thin-pool|flakey|log-writes'
        ip -brief link show lo | grep -o LOOPBACK,UP
        stat -f -c %T /tmp /run
        losetup --find
        echo one | tee /dev/stderr >/dev/null
        echo two >/dev/stderr
        touch /etc/machine-test /usr/machine-test "$TREE/machine-test" machine-test && echo written
        sleep 1000 &
        trap '' TERM; sleep 1000 &
        exit 122
    """

    HASHES = """
        import hashlib, threading, sys
        def work():
            for _ in range(4):
                sys.stdout.write(hashlib.sha256(bytes(4 << 20)).hexdigest() + "\\n")
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """

    def test_nobody_gets_another_s_vector_registers(self) -> None:
        program = self.HASHES.replace("\n        ", "\n")
        result = self.run_script(f"for i in 1 2; do /usr/bin/python3 -c '{program}' & done; wait")
        self.assert_ended(result, 0, "")
        self.assertEqual(result.stdout.split(), [hashlib.sha256(bytes(4 << 20)).hexdigest()] * 16)

    def test_surroundings_arguments_streams_and_status(self) -> None:
        odd = ["", "a b", "it's \"quoted\"", "two\nlines", "-x", "--", "$HOME `id`\\", "ü \udcff"]
        script = self.SCRIPT.replace("$TREE", str(TREE))
        command = ["bash", "-c", script, "bash", *odd]
        result = self.run_machine("--disk", "root=3M", "--disk", "data=5G", "--", *command)
        self.assertEqual(result.stderr, "one\ntwo\n")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                str(self.directory),
                f"1 a b {self.out} {TREE}/build/bin",
                "end of stdin",
                *(str(size) for size in (5 << 30, 512 << 20, 3 << 20)),
                "3",
                "LOOPBACK,UP",
                "tmpfs",
                "tmpfs",
                "/dev/loop0",
                "written",
            ],
        )
        # 122 of its own accord: the machine has nothing to add.
        self.assertEqual(result.returncode, 122)
        arguments = (self.out / "arguments").read_bytes()
        self.assertEqual(arguments.split(b"\0")[:-1], [os.fsencode(word) for word in odd])
        for place in (Path("/etc"), Path("/usr"), TREE, self.directory):
            self.assertFalse((place / "machine-test").exists())

    def test_a_real_thin_pool(self) -> None:
        result = self.run_script(
            f"""
            set -e
            echo '{NO_PASSDOWN}' >>$VM_OUT/allow-kernel
            echo '<4>hello' >/dev/kmsg
            dmsetup create pool --table "0 41943040 thin-pool $DISK_META $DISK_DATA 128 0"
            dmsetup message pool 0 'create_thin 0'
            dmsetup create thin --table '0 1048576 thin /dev/mapper/pool 0'
            # Else the kernel writes the tables later, while we measure.
            mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/mapper/thin
            mkdir /mnt/thin && mount /dev/mapper/thin /mnt/thin
            mapped() {{ dmsetup status thin | cut -d' ' -f4; }}
            dd if=/dev/urandom of=/mnt/thin/file bs=1M count=16 status=none; sync; full=$(mapped)
            rm /mnt/thin/file; sync; fstrim /mnt/thin; trimmed=$(mapped)
            echo $((full - trimmed >= 15 * 2048))
            """,
            "--allow-kernel",
            "^hel+o$",
        )
        self.assert_ended(result, 0, "")
        self.assertEqual(result.stdout, "1\n")
        log = (self.out / "kernel.log").read_text()
        self.assertTrue(log.startswith("==== boot 1\n"))
        self.assertRegex(log, r"(?m)^warn .* hello$")


    def test_systemd_as_process_1(self) -> None:
        result = self.run_script(
            """
            set -e
            echo $(cat /proc/1/comm) $(systemctl is-active basic.target) $(findmnt -no PROPAGATION /)
            systemd-run --quiet --unit sleeper sleep 1000
            exit 7
            """,
            "--init",
            "systemd",
        )
        self.assert_ended(result, 7, "")
        self.assertEqual(result.stdout, "systemd active shared\n")


class HowARunFails(MachineTest):
    def test_kernel_warning(self) -> None:
        script = "echo '<4>trouble ahead' >/dev/kmsg; echo '<5>fine' >/dev/kmsg"
        result = self.run_script(script, "--allow-kernel", "other")
        self.assert_ended(result, 121, "machine: the kernel's log has 1 warning(s)")
        self.assertIn("trouble ahead", result.stderr)
        self.assertNotIn("fine", result.stderr)

    def test_disks_that_cannot_be_written(self) -> None:
        result = self.run_script(
            """
            set -e
            dmsetup create disk --table "0 204800 linear $DISK_DATA 0"
            mkfs.ext4 -q /dev/mapper/disk && mount /dev/mapper/disk /mnt
            echo unwritten >/mnt/file
            dmsetup suspend --nolockfs --noflush disk
            """
        )
        self.assert_ended(result, 121, "machine: the disks could not be written within 5 s")

    def test_powered_off_by_the_command(self) -> None:
        result = self.run_script("busybox reboot -f; sleep 100")
        self.assert_ended(result, 122, "machine: the machine was lost")

    def test_panic_after_last_words(self) -> None:
        result = self.run_script("echo last words; echo c >/proc/sysrq-trigger")
        self.assertEqual(result.stdout, "last words\n")
        self.assert_ended(result, 123, "machine: the guest's kernel panicked: sysrq")
        self.assertIn("Kernel panic", (self.out / "kernel.log").read_text())

    def test_time_limit_and_live_output(self) -> None:
        with self.start("--timeout", "30", "--", "bash", "-c", "echo alive; sleep 100") as process:
            self.assertEqual(process.stdout.readline(), "alive\n")
            self.assertIsNone(process.poll())
            leader = self.find_uml()
            self.assertEqual(process.wait(), 124)
            said = process.stderr.read()
            self.assertEqual(said, "machine: the time limit of 30 s has passed\n")
        self.assertEqual(session_members(leader), [])

    def test_killed_by_somebody_else(self) -> None:
        with self.start("--", "sleep", "100") as process:
            leader = self.find_uml()
            os.kill(leader, signal.SIGKILL)
            self.assertEqual(process.wait(), 122)
            self.assertIn("machine: the machine was lost", process.stderr.read())
        self.assertEqual(session_members(leader), [])

    def test_bad_arguments_are_refused_in_one_sentence(self) -> None:
        for arguments, said in {
            (): "no command",
            ("--",): "no command",
            ("--disk", "data", "--", "x"): "not a size",
            ("--disk", "Data=1G", "--", "x"): "not NAME=SIZE",
            ("--disk", "data=100", "--", "x"): "not a multiple",
            ("--memory", "1M", "--", "x"): "at least",
            ("--timeout", "0", "--", "x"): "must be positive",
            ("--allow-kernel", "(", "--", "x"): "not a regular expression",
            ("--cpu", "4000", "--", "x"): "CPU 4000",
            ("--interactive", "--", "x"): "needs a terminal",
            ("--kind", "host", "--init", "systemd", "--", "x"): "its own process 1",
            ("--nonsense", "--", "x"): "--nonsense",
        }.items():
            with self.subTest(arguments), self.start(*arguments) as process:
                stdout, stderr = process.communicate()
                self.assertEqual((process.returncode, stdout), (125, ""))
                self.assertRegex(stderr, r"\Amachine: .*\n\Z")
                self.assertIn(said, stderr)


class Stopping(MachineTest):
    def test_a_signal_cleans_up(self) -> None:
        with self.start("--", "sleep", "100") as process:
            leader = self.find_uml()
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(), 128 + signal.SIGINT)
            self.assertEqual(process.stderr.read(), "machine: stopped by SIGINT\n")
        self.assertEqual(session_members(leader), [])

    def test_the_machine_does_not_outlive_its_killed_owner(self) -> None:
        state = self.directory / "state"
        with self.start("--state", str(state), "--", "sleep", "100") as process:
            leader = self.find_uml()
            wait_until(lambda: len(session_members(leader)) > 3, "the guest's processes")
            with self.start("--state", str(state), "--", "true") as second:
                self.assertEqual(second.wait(), 125)
                self.assertIn("another machine is using", second.stderr.read())
            process.kill()
            process.wait()
        wait_until(lambda: not session_members(leader), "the machine's end")
        wait_until(lambda: not any(self.temporary.iterdir()), "its files to be removed")


class SeveralBoots(MachineTest):
    SCRIPT = """
        set -e
        line() { dd if=$DISK_DATA bs=512 skip=$1 count=1 status=none | tr -d '\\0'; }
        write() {
          printf %s "$2" | dd of=$DISK_DATA bs=512 seek=$1 conv=sync,notrunc$3 status=none
        }
        echo "boot $VM_BOOT: '$(line 0)' '$(line 1000)' '$(line 2000)' $(ls /root/mark 2>/dev/null)"
        touch /root/mark
        case $VM_BOOT in
          1) write 0 rebooted; touch $VM_OUT/reboot;;
          2) exec 9<>$DISK_DATA  # the last one to close a disk flushes it
             write 1000 flushed ,fsync; write 2000 unflushed; touch $VM_OUT/power-cut; sleep 100;;
        esac
    """

    def test_disks_survive_reboot_power_cut_and_the_run(self) -> None:
        state = ["--state", str(self.directory / "state")]
        result = self.run_script(self.SCRIPT, *state)
        self.assert_ended(result, 0, "")
        self.assertEqual(
            result.stdout.splitlines(),
            [
                "boot 1: '' '' '' ",
                "boot 2: 'rebooted' '' '' ",
                "boot 3: 'rebooted' 'flushed' '' ",
            ],
        )
        headings = [x for x in (self.out / "kernel.log").read_text().splitlines() if "====" in x]
        self.assertEqual(headings, ["==== boot 1", "==== boot 2", "==== boot 3"])
        self.assertEqual(sorted(path.name for path in self.out.iterdir()), ["kernel.log"])

        result = self.run_script("head -c 8 $DISK_DATA", *state)
        self.assertEqual((result.returncode, result.stdout), (0, "rebooted"))

        result = self.run_script("true", *state, "--disk", "meta=1G")
        self.assert_ended(result, 125, "exists and has another size")


CONTROL_C, CONTROL_D, CONTROL_Z = b"\x03", b"\x04", b"\x1a"


class Interactive(MachineTest):
    @contextlib.contextmanager
    def terminal(self, *command: str) -> Iterator[tuple[subprocess.Popen, int]]:
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))

        def own_terminal() -> None:
            os.setsid()
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        streams = {"stdin": slave, "stdout": slave, "stderr": slave}
        modes = termios.tcgetattr(slave)
        try:
            arguments = ["--interactive", "--", *command]
            with self.start(*arguments, **streams, preexec_fn=own_terminal) as process:
                try:
                    yield process, master
                finally:
                    process.terminate()
            self.assertEqual(termios.tcgetattr(slave), modes)
        finally:
            os.close(master)
            os.close(slave)

    def test_playground_is_a_usable_shell(self) -> None:
        seen = b""
        with self.terminal("bash", "-c", f"{HERE}/playground.sh; dmsetup ls; ls /tmp") as (process, master):

            def expect(text: bytes) -> None:
                nonlocal seen
                while text not in seen:
                    if not select.select([master], [], [], 20)[0]:
                        self.fail(f"waited in vain for {text} after {seen}")
                    seen += os.read(master, 4096)
                seen = seen.partition(text)[2]

            def enter(keys: bytes) -> None:
                expect(b"# ")
                os.write(master, keys)

            expect(b"Ctrl-D ends the machine")
            enter(b"stty size; tty\n")
            expect(b"33 99\r\n/dev/tty0\r\n")
            # The sum tells the line that is printed from the one that was typed.
            sleeper = b"bash -c 'echo $((40 + 2)); exec sleep 1000'\n"
            enter(sleeper)
            expect(b"42\r\n")
            os.write(master, CONTROL_C)
            enter(b"echo status $?\n")
            expect(b"status 130")
            # What it says one can try.
            enter(b"convoy create web --size 1G && convoy mount web && convoy snapshot create web --name s1\n")
            enter(b"convoy backup create s1 --dest vfs://$(ls -d /tmp/convoy-playground.*/backups)/\n")
            expect(b"full backup: ")
            enter(sleeper)
            expect(b"42\r\n")
            os.write(master, CONTROL_Z)
            expect(b"Stopped")
            enter(CONTROL_D)
            expect(b"There are stopped jobs")
            enter(CONTROL_D)
            expect(b"No devices found")
            self.assertEqual(process.wait(20), 0)


class OnTheHostsOwnKernel(MachineTest):
    """User Mode Linux serves as a host that has a thin pool."""

    SCRIPT = """
        before=$(ls -A /tmp)
        machine() { timeout 20 /usr/bin/python3 MACHINE run --disk data=1M --disk meta=1M "$@"; }
        machine -- bash -c 'echo out $VM_BOOT; blockdev --getsize64 $DISK_META; exit 9'; echo $?
        machine -- bash -c 'echo "<4>trouble" >/dev/kmsg'; echo $?
        machine --allow-kernel '^t' -- bash -c 'echo "<4>trouble" >/dev/kmsg'; echo $?
        machine --timeout 1 -- sleep 100; echo $?
        machine -- bash -c 'touch $VM_OUT/reboot'; echo $?
        losetup -a
        ls -A /tmp | grep -vxF -e "$before"
    """

    def test_status_log_limit_and_cleaning_up(self) -> None:
        script = self.SCRIPT.replace("MACHINE", MACHINE)
        result = self.run_script(script, "--allow-kernel", "trouble")
        self.assertEqual(
            result.stdout.split(), ["out", "1", "1048576", "9", "121", "0", "124", "125"]
        )
        self.assertIn("machine: the kernel's log has 1 warning(s)", result.stderr)
        self.assertIn("machine: the time limit of 1 s has passed", result.stderr)
        self.assertIn("machine: the host's own kernel is not rebooted", result.stderr)


class WithoutBooting(unittest.TestCase):
    def test_concurrent_machines_get_different_cpus_while_there_are_any(self) -> None:
        usable = os.sched_getaffinity(0)
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as slots:
            with unittest.mock.patch.dict(os.environ, {"XDG_RUNTIME_DIR": directory}):
                taken = {slots.enter_context(cpu_slot.reserve(None)) for _ in usable}
                self.assertEqual(taken, usable)
                self.assertIn(slots.enter_context(cpu_slot.reserve(None)), usable)

    def test_kernel_records_that_are_read_twice_or_cut_off(self) -> None:
        raw = b"6,1,5,-;one\n KEY=value\n12,2,1500000,-;two; too\n6,1,5,-;one\n6,3,5"
        records = kernel_log.parse(raw)
        read = [(record.sequence, record.level, record.text) for record in records]
        self.assertEqual(read, [(1, 6, "one"), (2, 4, "two; too")])
        self.assertEqual(str(records[1]), "warn   [    1.500000] two; too")


if __name__ == "__main__":
    unittest.main()
