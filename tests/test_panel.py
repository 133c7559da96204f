"""What all panels share: presses while the panel is busy, what goes wrong, questions, and the thread that polls."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from platform_tools import wait_for
from test_ui import Tags

from mciot_nb import OnboardingError
from mciot_nb.ui import inputs
from mciot_nb.ui.markup import Rendered, paragraph
from mciot_nb.ui.panel import Panel


class Watched(Panel):
    """A panel that counts its polls, and fails if asked to; each press waits until it may go on."""

    polls, fail = 0, False

    def __init__(self) -> None:
        super().__init__("Try")
        self.go_on, self.done = threading.Event(), list[str]()
        self.build()

    def poll(self) -> None:
        self.polls += 1
        if self.fail:
            raise RuntimeError("never in a notebook")

    def press(self, name: str, error: Exception | None = None, *about: object) -> None:
        def work() -> None:
            assert self.go_on.wait(60)
            self.done.append(name)
            if error:
                raise error

        self.do(name, work, lambda _: f"✓ {name}.", *about)

    @property
    def said(self) -> str:
        return Tags(self._message.value).text

    def picture(self) -> Rendered:
        return paragraph("a panel")


# -- presses


def test_what_is_pressed_meanwhile_is_done_next_and_nothing_said_is_lost() -> None:
    panel = Watched()
    panel.press("One")
    assert panel.busy and panel.said == "One …"
    panel.press("Two", OnboardingError("It failed."))
    panel.press("Three")
    assert panel.said == "One … Next: Two, Three."
    panel.press("Two")
    assert panel.said == "One … Next: Two, Three. Pressed twice: it is done once."
    panel.press("Two", None, "of another row")
    panel.go_on.set()
    panel.wait()
    assert panel.done == ["One", "Two", "Three", "Two"] and not panel.busy
    assert panel.said == "✓ One. ✗ It failed. ✓ Three. ✓ Two."
    panel.press("Four")
    panel.wait()
    assert panel.said == "✓ Four."  # what was said before is over


def test_presses_from_many_threads_are_all_done_one_at_a_time() -> None:
    panel, at_once, lock = Watched(), list[bool](), threading.Lock()

    def work() -> None:
        at_once.append(lock.acquire(blocking=False))
        lock.release()

    def press(number: int) -> None:
        for turn in range(50):
            panel.do("Working", work, lambda _: "", number, turn)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(press, range(4)))
    wait_for(lambda: not panel.busy, 60)
    assert at_once == [True] * 200


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OnboardingError("There is no key."), "✗ There is no key."),
        (PermissionError(13, "Permission denied"), "✗ Not done: Permission denied. Fix that, and try again."),
        (ZeroDivisionError(), "✗ Not done, for a reason that has no name here: run the cell again."),
    ],
)
def test_what_goes_wrong_is_a_sentence_and_the_next_press_is_done(
    error: Exception, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    panel = Watched()
    panel.go_on.set()
    with caplog.at_level(logging.ERROR):
        panel.press("Doing", error)
        panel.wait()
    assert panel.said == sentence
    assert ("Traceback" in caplog.text) == isinstance(error, ZeroDivisionError)  # for whoever mends it
    panel.press("Again")
    panel.wait()
    assert panel.said == "✓ Again."


def test_a_question_is_answered_once_and_a_press_takes_it_away() -> None:
    panel, answers = Watched(), list[str]()
    for last in (-2, -1):
        panel.ask("Really?", "Yes", lambda: answers.append("yes"))
        pressed = panel._question.children[last]
        for _ in range(3):
            pressed.click()
        assert not panel._question.children and "mciot-hidden" in panel._question._dom_classes
    assert answers == ["yes"]
    panel.ask("Really?", "Yes", lambda: answers.append("yes"))
    old = panel._question.children[-2]
    panel.ask("Or this?", "Yes", lambda: answers.append("this"))
    old.click()  # of a question that is gone
    assert answers == ["yes"] and panel._question.children
    panel.press("Other")
    assert not panel._question.children
    panel.go_on.set()


def test_pandas_is_there_before_any_thread_needs_it() -> None:
    """Two threads that import pandas at once can meet it half made: a press of Connect failed for that."""
    code = "import sys, mciot_nb.ui.panel; print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


# -- the thread that polls


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(inputs, "POLL_EVERY", 0.01)
    monkeypatch.setattr(inputs, "GRACE", 0.05)
    yield
    wait_for(lambda: pollers() == [], 60)


def say(panel: Panel, word: str) -> None:
    """Do what the browser does when it says ``word``."""
    panel._poller._handle_custom_msg(word, [])


def pollers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if "_poll" in thread.name]


def soon(condition: Callable[[], bool]) -> bool:
    return bool(wait_for(condition, 60))


def test_a_panel_polls_while_pings_come_and_in_one_thread_only(quick: None) -> None:
    panel = Watched()
    time.sleep(0.05)
    assert panel.polls == 0 and pollers() == []  # it is on no screen: an export, nbval
    for _ in range(20):
        say(panel, "ping")
    assert soon(lambda: panel.polls > 3) and len(pollers()) == 1
    say(panel, "gone")
    say(panel, "ping")  # of another view
    before = panel.polls
    assert soon(lambda: panel.polls > before + 20) and len(pollers()) == 1
    say(panel, "gone")
    assert soon(lambda: pollers() == [])
    before = panel.polls
    say(panel, "ping")  # it comes into view again
    assert soon(lambda: panel.polls > before + 3) and len(pollers()) == 1
    panel._poller.close()
    assert soon(lambda: pollers() == [])
    say(idle := Panel("Try"), "ping")
    assert pollers() == [] and not idle.busy


def test_the_view_gets_its_answer_before_it_sends_a_press(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, answers = Panel("Try"), list[object]()
    monkeypatch.setattr(panel._poller, "send", answers.append)
    for word in ("ping", "settle", "gone"):
        say(panel, word)
    assert answers == [{}]


def test_a_poll_that_fails_writes_no_traceback_and_silence_ends_the_polls(
    quick: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inputs, "PATIENCE", 0.2)
    panel = Watched()
    panel.fail = True
    say(panel, "ping")
    assert soon(lambda: panel.polls > 3) and soon(lambda: pollers() == [])
    assert "run the cell again" in panel.said and capfd.readouterr() == ("", "")
