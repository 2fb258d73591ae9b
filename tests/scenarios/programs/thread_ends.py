"""Each task gets a thread of its own, which ends without removing its session."""

from __future__ import annotations

import threading

from sqlalchemy import create_engine, text
from sqlalchemy.orm import scoped_session, sessionmaker
from stage import DSN, main, turns

engine = create_engine(DSN)
Session = scoped_session(sessionmaker(engine))


def send_mail(order: int) -> None:
    Session.execute(text("SELECT :order"), {"order": order})  # LEAK


def send_mail_and_remove(order: int) -> None:
    try:
        Session.execute(text("SELECT :order"), {"order": order})
    finally:
        Session.remove()


def buggy() -> None:
    for order in range(4):
        threading.Thread(target=send_mail, args=(order,)).start()


def healthy() -> None:
    for order in turns():
        threading.Thread(target=send_mail_and_remove, args=(order,)).start()


if __name__ == "__main__":
    main(buggy, healthy)
