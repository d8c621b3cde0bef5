"""What a site's executor does, without a table: answers the SuperNode on PORT as site NAME.

`stand_in_site.py PORT SECRET-FILE NAME`; what it does beyond an echo is asked by the message:
"sleep" (seconds), "die" (a site's name: its process ends without a reply).
"""

import os
import sys
import time

import httpx
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError, ObjectUnavailableError
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

import flfed
from flfed.deployment.flower.message_parts import apart, joined
from flfed.updates.messages.enrol import EnrolReply

GONE = (ObjectPullError, ObjectUnavailableError, ObjectPushError)
"""What Flower raises where a run was ended: it takes the parts of its messages along."""
name = sys.argv[-1]
app = ClientApp()


@app.query("enrol")
def enrol(message, context):
    reply = EnrolReply(site=name, title=name, version=flfed.__version__, accepted=True)
    return Message(reply.to_record(), reply_to=message)


@app.train()
def train(message, context):
    asked = dict(message.content["config"])
    if asked.get("die") == name:
        os._exit(1)
    time.sleep(float(asked.get("sleep", 0)))
    echo = {"site": name, "sites": context.run_config["sites"], "study": context.run_config["study"], **asked}
    content = RecordDict({"config": ConfigRecord(echo)})
    if "arrays" in message.content:
        content["arrays"] = message.content["arrays"]
    return Message(content, reply_to=message)


def answer(port: str, secret_file: str) -> None:
    """Answer one message after the other, until this process is ended."""
    address = f"http://127.0.0.1:{port}"
    signed = frozenset({"/flwr.proto.Runtime/AcquireTask"})
    with open(secret_file, "rb") as file:
        signing = SuperExecAuthHttpInterceptor(master_secret=file.read(), protected_methods=signed)
    acquiring = RuntimeHttpClient(address, interceptors=[RuntimeVersionHttpInterceptor("SuperExec"), signing])
    while True:
        try:
            found = acquiring.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp"]))
        except httpx.HTTPError:
            time.sleep(0.2)
            continue
        if not (found.HasField("task") and found.token):
            time.sleep(0.05)
            continue
        words = [RuntimeVersionHttpInterceptor("flwr-clientapp"), RuntimeTokenHttpInterceptor(found.token)]
        client = RuntimeHttpClient(address, interceptors=words)
        try:
            message, context, run, fab = pull_task_input(client)
            whole = apart(message)
            reply = app(whole, context)
            push_message(client, reply if whole is message else joined(reply), context)
            push_task_output(client, context, SubStatus.COMPLETED, "")
            print(f"answered {message.metadata.message_type}", flush=True)
        except (httpx.HTTPError, *GONE) as error:
            print(f"not answered: {type(error).__name__}", flush=True)
        client.close()


if __name__ == "__main__":
    answer(*sys.argv[1:3])
