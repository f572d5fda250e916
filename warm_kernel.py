"""A Jupyter kernel that starts at once: a fork of a process that has imported the libraries already.

Every stage of the graph starts a kernel, and the same imports would take five seconds of each. `./run dvc repro` goes
through `before`, which starts the process that forks (`serve`) and becomes the command; what the kernel's specification
starts is `ask`, which hands over its arguments, environment, folder and output, and lives as long as the kernel does.
Where that process is gone, `ask` becomes an ordinary kernel. So does everything beside Linux, and where there is a GPU:
a fork cannot use CUDA once an import has looked for one.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

SOCKET = "WARM_KERNEL_SOCKET"
# Libraries alone: the package itself is read anew by every kernel.
LIBRARIES = [
    "accelerate",
    "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition",
    "diffusers.pipelines.deprecated.audioldm.pipeline_audioldm",
    "ipykernel.kernelapp",
    "joblib",
    "librosa.feature",
    "librosa.filters",
    "pandas",
    "pydantic",
    "scipy.stats",
    "seaborn",
    "soundfile",
    "soxr",
    "tokenizers",
    "torch._dynamo",
    "transformers.models.clap.modeling_clap",
    "transformers.models.speecht5.modeling_speecht5",
]
GPUS = ("nvidiactl", "dxg", "kfd")  # of NVIDIA, in Windows' Linux, of AMD
# Of `dvc exp show`, which has a column for each of hundreds of settings and files: what differs, and no files; unless the
# command itself says which columns, or has a program read them.
READABLE = ("--only-changed", "--drop", ".*/")
COLUMNS = {"--only-changed", "--drop", "--keep", "--csv", "--json", "--md"}
INLINE = "module://matplotlib_inline.backend_inline"  # what a kernel draws with: read when matplotlib is imported


def start(folder: Path) -> None:
    """Start the process that forks, which ends with this one and removes the new `folder`; from here on `python3` is this
    kernel, for this process and those that it starts."""
    spec = folder / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    argv = [sys.executable, __file__, "ask", "{connection_file}"]
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    known = os.environ.get("JUPYTER_PATH")
    os.environ["JUPYTER_PATH"] = os.pathsep.join([str(folder), *([known] if known else [])])
    os.environ[SOCKET] = str(folder / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.environ[SOCKET])
        listener.listen()
        number, parent = str(listener.fileno()), str(os.getpid())
        # A session of its own: Ctrl-C is for the command, which then ends its kernels.
        how = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.Popen(
            [sys.executable, __file__, "serve", number, parent, str(folder)],
            pass_fds=[listener.fileno()],
            env=os.environ | {"MPLBACKEND": INLINE},
            start_new_session=True,
            **how,
        )


def before(*command: str) -> None:
    """Become a command; one that runs stages has its settings checked, and warm kernels."""
    runs_stages = command[:2] == ("dvc", "repro") or command[:3] == ("dvc", "exp", "run")
    if runs_stages:
        from foleylib.params import experiment

        try:
            experiment.check(command)
        except ValueError as error:
            sys.exit(f"{error}\nNothing was run and no output was touched.")
    if runs_stages and "--dry" in command:
        # A plan has what follows from a stage too, and does not stop where what that stage makes is not there yet.
        command += ("--force-downstream",)
    elif runs_stages and sys.platform == "linux" and not any(Path("/dev", name).exists() for name in GPUS):
        start(Path(tempfile.mkdtemp(prefix="warm_kernel_")))
    elif command[:3] == ("dvc", "exp", "show") and not COLUMNS & {option.split("=")[0] for option in command}:
        command += READABLE
        print(*command, file=sys.stderr)
    os.execvp(command[0], command)


def serve(number: str, parent: str, folder: str) -> None:
    """Fork a kernel for whoever connects to the socket that is open under a number, until the parent is gone."""
    listener = socket.socket(fileno=int(number))
    try:
        for library in LIBRARIES:
            importlib.import_module(library)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        listener.settimeout(1)
        while os.getppid() == int(parent):
            with contextlib.suppress(TimeoutError):
                fork_for(listener.accept()[0], listener)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fork_for(connection: socket.socket, listener: socket.socket) -> None:
    """Fork the kernel for who connected."""
    if os.fork():
        connection.close()
        return
    try:
        listener.close()
        become_kernel(connection)
    finally:
        os._exit(1)  # the fork is nothing but a kernel


def become_kernel(connection: socket.socket) -> None:
    """In the fork: take over what `ask` sent, and run the kernel until it is shut down or `ask` dies."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    connection.setblocking(True)
    message, files, *_ = socket.recv_fds(connection, 1 << 20, 2)
    request = json.loads(message)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.path[0] = request["folder"]
    # With a parent to watch, a kernel does not tell how it would be stopped by hand.
    sys.argv = ["ipykernel_launcher", "-f", *request["arguments"], f"--IPKernelApp.parent_handle={os.getppid()}"]
    sys.argv.append("--IPKernelApp.log_level=ERROR")  # not that its port, of this machine alone, is without encryption
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
        try:
            connection.connect(os.environ[SOCKET])
            request = {"environment": dict(os.environ), "folder": os.getcwd(), "arguments": arguments}
            socket.send_fds(connection, [json.dumps(request).encode()], [1, 2])
            kernel = int(connection.recv(32))
        except (KeyError, OSError, ValueError):  # nobody answers
            os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", *arguments])

        def forward(number, frame) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(kernel, number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, forward)
        connection.recv(1)


if __name__ == "__main__":
    {"serve": serve, "ask": ask, "before": before}[sys.argv[1]](*sys.argv[2:])
