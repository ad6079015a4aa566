"""What a user and an operator see in a real browser, run by `system/browser.rs` on a stack of its own.

VIGIA_URL, VIGIA_TOKEN: the stack and its admin token. SCREENSHOTS: a directory for pictures, or not
set. Ends with 0, or with 1 and what was seen last. Nothing is retried: what is waited for has a
deadline, and whatever the page or the network complains about on the way is an error too.
"""

import os
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

URL = os.environ["VIGIA_URL"]
TOKEN = os.environ["VIGIA_TOKEN"]
PICTURES = os.environ.get("SCREENSHOTS")
LOGIN, PASSWORD = "ana.browser", "correct horse battery"
# Chromium is Debian's; nothing in it may call home.
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP = {"width": 1000, "height": 700}
PHONE = {"width": 390, "height": 844}
SMALLEST = {"width": 320, "height": 640}
SCALING = 90.0


def main() -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=FLAGS)
        context = browser.new_context(viewport=DESKTOP, color_scheme="light", locale="en-GB")
        context.set_default_timeout(10_000)
        page = context.new_page()
        complaints = listen(page)
        a_user_signs_up_in_and_out(page)
        a_wrong_address_is_a_page(page)
        the_operator_sets_the_amount_and_watches(page)
        pages_fit_a_phone(page)
        assert complaints == [], f"the browser complains: {complaints}"
        browser.close()


def listen(page: Page) -> list[str]:
    """Errors of scripts, violations of the content security policy, and requests to elsewhere."""
    found: list[str] = []
    page.on("pageerror", lambda error: found.append(f"script: {error}"))

    def said(message) -> None:
        # Refusals that are part of the story.
        is_told = any(f"with a status of {status}" in message.text for status in (401, 404, 503))
        if message.type in ("error", "warning") and not is_told:
            found.append(f"console: {message.text}")

    page.on("console", said)
    page.on("request", lambda request: request.url.startswith(URL) or found.append(f"asks {request.url}"))
    return found


def a_user_signs_up_in_and_out(page: Page) -> None:
    page.goto(URL)
    expect(page.get_by_role("heading", name="Welcome")).to_be_visible()
    picture(page, "home-light")
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    picture(page, "home-dark-phone")
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light")

    sign_up = page.get_by_role("region", name="Sign up")
    sign_up.get_by_label("Login").fill(LOGIN)
    sign_up.get_by_label("Password").fill(PASSWORD)
    sign_up.get_by_role("button", name="Create the account").click()
    expect(page.get_by_role("heading", name="Signed up")).to_be_visible()
    expect(page.get_by_label("Login")).to_have_value(LOGIN)

    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("The login or the password is wrong; check both and try again.")).to_be_visible()
    page.get_by_role("link", name="Back to the start").click()

    sign_in = page.get_by_role("region", name="Sign in")
    sign_in.get_by_label("Login").fill(LOGIN.upper())
    sign_in.get_by_label("Password").fill(PASSWORD)
    sign_in.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{URL}/protected")
    expect(page.get_by_role("heading", name="Protected page")).to_be_visible()
    expect(page.get_by_text(f"Signed in as {LOGIN}.")).to_be_visible()
    picture(page, "protected", whole=True)
    workers = set()
    for _ in range(12):
        page.reload()
        workers.add(page.locator("dt:has-text('Answered by') + dd").inner_text())
    assert len(workers) >= 2, f"twelve views of the page were all answered by {workers}"

    page.get_by_role("button", name="Sign out", exact=True).click()
    page.wait_for_url(f"{URL}/")
    page.goto(f"{URL}/protected")
    assert page.url == f"{URL}/", f"after signing out, the protected page is at {page.url}"


def a_wrong_address_is_a_page(page: Page) -> None:
    response = page.goto(f"{URL}/nowhere")
    assert response is not None and response.status == 404, response
    expect(page.get_by_role("heading", name="Not Found")).to_be_visible()
    picture(page, "error")


def the_operator_sets_the_amount_and_watches(page: Page) -> None:
    page.goto(f"{URL}/admin")
    page.get_by_label("Admin token").fill("not the token")
    page.get_by_role("button", name="Open the dashboard").click()
    expect(page.get_by_role("alert")).to_have_text("This is not the admin token of this stack.")
    page.get_by_label("Admin token").fill(TOKEN)
    page.get_by_role("button", name="Open the dashboard").click()
    page.wait_for_url(f"{URL}/admin")
    expect(page.locator("#live-status")).to_contain_text("Live.")
    expect(page.locator("#live-chart svg")).to_be_visible()
    expect(page.locator("#live-chart svg path.healthy")).to_have_count(1)

    amount = page.get_by_role("spinbutton", name="Workers")
    amount.fill("4")
    page.get_by_role("button", name="Set", exact=True).click()
    page.wait_for_url(f"{URL}/admin")
    expect(page.locator("#live-desired .value")).to_have_text("4")
    # Without loading the page again: its own polls must bring the workers.
    page.evaluate("window.sameLoad = true")
    wait_for_workers(page, 4)
    assert page.evaluate("window.sameLoad === true"), "the page was loaded again"
    wait_until("rates from several workers", 30, lambda: several_rates(page))
    if PICTURES:
        # A few more samples, so that the picture shows what happened.
        page.wait_for_timeout(10_000)
    picture(page, "dashboard", whole=True)
    page.emulate_media(color_scheme="dark")
    picture(page, "dashboard-dark", whole=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    picture(page, "dashboard-phone", whole=True)
    page.set_viewport_size(DESKTOP)

    page.get_by_label("Login begins with").fill("ANA")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#users .names li")).to_have_text([LOGIN])
    without_javascript(page)
    the_dashboard_says_what_is_wrong(page)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Admin token")).to_be_visible()


def wait_for_workers(page: Page, number: int) -> None:
    def look() -> tuple[bool, str]:
        figures = [page.locator(f"#live-{name} .value").inner_text() for name in ("desired", "healthy")]
        states = page.locator("#live-workers .state").all_inner_texts()
        seen = f"desired and healthy {figures}, states {states}"
        return figures == [str(number)] * 2 and states == ["healthy"] * number, seen

    wait_until(f"{number} healthy workers", SCALING, look)


def several_rates(page: Page) -> tuple[bool, str]:
    text = page.locator("#live-rates").inner_text()
    count = int(text.split(" of ")[1].split()[-1])
    return count >= 2 and text.endswith("of 4 workers."), text


def wait_until(what: str, seconds: float, look) -> None:
    since = time.monotonic()
    while True:
        is_reached, seen = look()
        passed = time.monotonic() - since
        if is_reached:
            print(f"{what}: after {passed:.1f} s", file=sys.stderr)
            return
        assert passed < seconds, f"{what}: not within {seconds} s; last seen: {seen}"
        time.sleep(0.25)


def without_javascript(page: Page) -> None:
    """The same session, and a browser that runs no scripts."""
    browser = page.context.browser
    assert browser is not None
    plain = browser.new_context(java_script_enabled=False, storage_state=page.context.storage_state())
    view = plain.new_page()
    view.goto(f"{URL}/admin")
    expect(view.locator("#live-healthy .value")).to_have_text("4")
    expect(view.locator("#live-workers .state")).to_have_text(["healthy"] * 4)
    expect(view.get_by_text("The chart needs JavaScript")).to_be_visible()
    plain.close()


def the_dashboard_says_what_is_wrong(page: Page) -> None:
    polls, status = "**/admin/fleet", page.locator("#live-status")
    page.route(polls, lambda route: route.fulfill(status=503, json={}))
    expect(status).to_contain_text("No answer since")
    page.unroute(polls)
    expect(status).to_contain_text("Live.")

    evil = "<img src=x onerror='document.title = 1'>"

    def spoil(route) -> None:
        answer = route.fetch()
        picture = answer.json()
        picture["events"].insert(0, {"at": picture["at"], "text": evil})
        picture["held"] = picture["problems"] = [evil]
        picture["workers"][0] |= {"release": evil, "version": evil, "zone": evil, "reason": evil}
        route.fulfill(response=answer, json=picture)

    page.route(polls, spoil)
    for part in ("events", "held", "problems", "workers"):
        expect(page.locator(f"#live-{part}")).to_contain_text(evil)
    assert page.locator("main img").count() == 0, "what comes from the fleet became markup"
    page.unroute(polls)
    expect(page.locator("#live-events")).not_to_contain_text(evil)

    kept = page.context.cookies()
    page.context.clear_cookies(name="vigia_admin")
    expect(status).to_contain_text("The session has ended.")
    page.context.add_cookies(kept)
    status.get_by_role("link", name="Sign in again").click()
    expect(status).to_contain_text("Live.")


def pages_fit_a_phone(page: Page) -> None:
    page.set_viewport_size(SMALLEST)
    for path in ("/", "/admin", "/nowhere"):
        page.goto(f"{URL}{path}")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= SMALLEST["width"], f"{path} is {width} pixels wide on a small phone"
    page.set_viewport_size(DESKTOP)


def picture(page: Page, name: str, whole: bool = False) -> None:
    if PICTURES:
        page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=whole)


if __name__ == "__main__":
    try:
        main()
    except AssertionError as failure:
        sys.exit(f"failed: {failure}")
