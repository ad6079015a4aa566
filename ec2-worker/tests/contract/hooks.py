"""What the generator of requests cannot know: a session, the admin token, and to leave the fleet its size."""

import itertools
import os
import urllib.parse
import urllib.request

import schemathesis

URL = os.environ["VIGIA_URL"]
TOKEN = os.environ["VIGIA_TOKEN"]
PASSWORD = "zzyzx road"
# So that a run does not meet the users of the one before.
RUN = os.urandom(6).hex()
numbers = itertools.count()


class Opener(urllib.request.HTTPRedirectHandler):
    """The answer itself, not the page that it leads to."""

    def redirect_request(self, *_):
        return None


def post(path, fields):
    body = urllib.parse.urlencode(fields).encode()
    opener = urllib.request.build_opener(Opener)
    try:
        return opener.open(urllib.request.Request(URL + path, data=body, method="POST"), timeout=30)
    except urllib.error.HTTPError as answer:
        return answer


@schemathesis.auth(refresh_interval=None)
class Session:
    """A user and a session of its own for each request: some of them sign out or delete the account."""

    def get(self, case, context):
        user = {"login": f"contract-{RUN}-{next(numbers)}", "password": PASSWORD}
        registered = post("/signup", user)
        assert registered.status == 201, registered.read()
        signed_in = post("/signin", user)
        assert signed_in.status == 303, signed_in.read()
        cookies = [cookie.split(";")[0] for cookie in signed_in.headers.get_all("Set-Cookie")]
        return dict(cookie.split("=", 1) for cookie in cookies)["vigia_session"]

    def set(self, case, data, context):
        case.cookies = {**(case.cookies or {}), "vigia_session": data}
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {TOKEN}"}


def small(parameters):
    """A fleet of a hundred would be the right answer to an amount of a hundred."""
    amount = (parameters or {}).get("amount")
    if isinstance(amount, int) and 3 < amount <= 100:
        return {**parameters, "amount": 3}
    return parameters


@schemathesis.hook
def map_query(context, query):
    return small(query)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    return small(path_parameters)
