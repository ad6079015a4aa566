"""Runs AWS command lines: each connection to the socket named by the first argument brings one as a JSON list.

Python needs a second to load the AWS command line. Here it is loaded once, and a fork runs each command. The answer is
all output, and a last line with the exit status. The end of standard input ends this program.
"""

import json
import os
import signal
import socket
import sys
import threading

import awscli.clidriver


def run(connection: socket.socket) -> None:
    """Runs in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments = json.loads(connection.makefile("r").readline())
    for stream in (1, 2):
        os.dup2(connection.fileno(), stream)
    try:
        status = awscli.clidriver.create_clidriver().main(arguments)
    except SystemExit as end:
        status = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(f"\n{status or 0}".encode())


def end_with_standard_input() -> None:
    sys.stdin.read()
    os._exit(0)


def main() -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(sys.argv[1])
    listener.listen(64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # The first use loads more than the import does.
    awscli.clidriver.create_clidriver().main(["s3api", "create-bucket", "--generate-cli-skeleton"])
    print("ready", flush=True)
    threading.Thread(target=end_with_standard_input, daemon=True).start()
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            run(connection)
            os._exit(0)
        connection.close()


main()
