"""A Jupyter kernel that starts at once: a fork of a process that has imported the libraries already.

The smoke graph starts a kernel for each of its stages, and the same imports took two thirds of its time.
`serve` is the process that forks; what the kernel's specification starts is `ask`, which hands over its
arguments, environment, folder and output, and lives as long as the kernel does.
"""

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

SOCKET = "WARM_KERNEL_SOCKET"
# Libraries alone: the package itself is read anew by every kernel. Not pyplot, which asks for the kernel's own backend.
LIBRARIES = [
    "accelerate",
    "diffusers.pipelines.deprecated.audioldm.pipeline_audioldm",
    "ipykernel.kernelapp",
    "librosa.feature",
    "librosa.filters",
    "matplotlib.figure",
    "pandas",
    "pydantic",
    "scipy.stats",
    "soundfile",
    "soxr",
    "tokenizers",
    "torch._dynamo",
    "transformers.models.clap.modeling_clap",
    "transformers.models.speecht5.modeling_speecht5",
]


def start(folder: Path) -> subprocess.Popen:
    """Start the process that forks; from here on `python3` is this kernel, for this process and those that it starts."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, __file__, "ask", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    os.environ.update({"JUPYTER_PATH": str(folder), SOCKET: str(folder / "socket")})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[SOCKET])
        listener.listen()
        number = listener.fileno()
        return subprocess.Popen([sys.executable, __file__, "serve", str(number)], pass_fds=[number])


def serve(number: str) -> None:
    """Fork a kernel for whoever connects to the socket that is open under a number."""
    listener = socket.socket(fileno=int(number))
    for library in LIBRARIES:
        importlib.import_module(library)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            become_kernel(connection)
        connection.close()


def become_kernel(connection: socket.socket) -> None:
    """In the fork: take over what `ask` sent, and run the kernel until it is shut down or `ask` dies."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    message, files, *_ = socket.recv_fds(connection, 1 << 20, 2)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[:] = [request["folder"], *sys.path[1:]]
    sys.argv = ["ipykernel_launcher", "-f", *request["arguments"]]
    for file, standard in zip(files, (1, 2)):
        os.dup2(file, standard)
    connection.sendall(str(os.getpid()).encode())

    def watch() -> None:
        connection.recv(1)  # nothing more is sent: this returns when the other end is gone
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    from ipykernel import kernelapp

    kernelapp.launch_new_instance()
    os._exit(0)


def ask(*arguments: str) -> None:
    """Have a kernel forked (its arguments are the connection file and what a client adds), pass on the signals that are
    meant for it, and wait for its end."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ[SOCKET])
        request = {"environment": dict(os.environ), "folder": os.getcwd(), "arguments": arguments}
        socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
        kernel = int(connection.recv(32))

        def forward(number, frame) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel, number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, forward)
        connection.recv(1)


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](*sys.argv[2:])
