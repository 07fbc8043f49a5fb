"""Runs Python in forks of one process that has torch and Ultralytics loaded: importing them takes most of the time of a
short `yolo` command.

What such a fork starts with ``sys.executable`` is a fork of that process too. It must not import yolov10_dysample:
torch's entry point does, as in every process. What a test says about starting, such as the autoload or a variable that
is read on import, needs a process of its own; so does one that kills what it started.
"""

import gc
import importlib
import json
import os
import runpy
import signal
import socket
import sys


def serve(folder: str) -> list[str]:
    """Run what :func:`ask` sends to the socket in a folder. Returns in the forks only: the words after `python`."""
    for module in ("ultralytics", "ultralytics.models.yolo", "torch._inductor.config"):  # a training needs the last
        importlib.import_module(module)
    os.chdir(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("socket")
    listener.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    gc.collect()
    gc.freeze()  # a collection in a fork would look at, and so copy, all that was imported
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            break
        connection.close()
    listener.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request, descriptors, _, _ = socket.recv_fds(connection, 2**20, 3)
    if fork := os.fork():
        _, status = os.waitpid(fork, 0)
        connection.send(str(os.waitstatus_to_exitcode(status) % 256).encode())
        os._exit(0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    for descriptor in (*descriptors, connection.detach()):
        os.close(descriptor)
    command, cwd, environ = json.loads(request)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    sys.executable = os.path.join(folder, "python")
    return command


def ask(folder: str, command: list[str]) -> int:
    """Have Python run there, with this environment, input and output; its exit status."""
    request = json.dumps((command, os.getcwd(), dict(os.environ))).encode()
    os.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect("socket")
        socket.send_fds(connection, [request], [0, 1, 2])
        return int(connection.recv(16))


def start(command: list[str]) -> None:
    """As `python` does with a script, with -m and a module, or with -c and code."""
    if command[0] == "-c":
        sys.argv[:] = ["-c", *command[2:]]
        exec(command[1], {"__name__": "__main__"})
        return
    if command[0] == "-m":
        sys.argv[:] = command[1:]
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        return
    sys.argv[:] = command
    sys.path.insert(0, os.path.dirname(os.path.abspath(command[0])))
    runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    start(serve(sys.argv[1]))
