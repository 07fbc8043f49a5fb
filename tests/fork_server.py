"""Runs Python scripts in forks of one process that has torch and Ultralytics loaded: importing them takes most of the
time of a short `yolo` command.

It must not import yolov10_dysample: torch's entry point does, as in every process. What a test says about starting,
such as the autoload or a variable that is read on import, needs a process of its own.
"""

import importlib
import json
import os
import runpy
import socket
import sys


def serve(folder: str) -> list[str]:
    """Run what :func:`ask` sends to the socket in a folder. Returns in the forks only: the script and its arguments."""
    for module in ("ultralytics", "ultralytics.models.yolo", "torch._inductor.config"):  # a training needs the last
        importlib.import_module(module)
    os.chdir(folder)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("socket")
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        request, descriptors, _, _ = socket.recv_fds(connection, 2**20, 3)
        if not (fork := os.fork()):
            break
        for descriptor in descriptors:
            os.close(descriptor)
        _, status = os.waitpid(fork, 0)
        connection.send(str(os.waitstatus_to_exitcode(status) % 256).encode())
        connection.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    command, cwd, environ = json.loads(request)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(cwd)
    return command


def ask(folder: str, command: list[str]) -> int:
    """Have a script run here, with this environment, input and output; its exit status."""
    request = json.dumps((command, os.getcwd(), dict(os.environ))).encode()
    os.chdir(folder)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect("socket")
        socket.send_fds(connection, [request], [0, 1, 2])
        return int(connection.recv(16))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    sys.argv[:] = serve(sys.argv[1])
    sys.path.insert(0, os.path.dirname(os.path.abspath(sys.argv[0])))
    runpy.run_path(sys.argv[0], run_name="__main__")
