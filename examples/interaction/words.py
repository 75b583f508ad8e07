"""What is said, with its known intent, and what is a fit reply. Templates, all of them: no person wrote these turns.

Replies are learned with slots, `{item}` and the like, which the records fill: a fact never passes through a model's
weights, so that one which changed today needs no training (delexicalised generation: Wen et al. 2015, "Semantically
Conditioned LSTM-based Natural Language Generation for Spoken Dialogue Systems").
"""

from __future__ import annotations

from itertools import product

import numpy as np

from examples.interaction.faces import EXPRESSIONS

EMOTIONS = tuple(EXPRESSIONS)
INTENTS = ("greeting", "complaint", "order_state", "cancel", "thanks", "goodbye")
UNSURE = "unsure"
"""in place of an intent that the model is not sure of: the reply asks"""
QUESTIONS = ("order_state",)
STATES = ("none", "packed", "shipped", "delayed", "delivered")
"""of a customer's order; none: no customer, or no order"""
ITEMS = ("lamp", "kettle", "coat", "radio", "chair", "rucksack", "blanket", "toaster")

SAID: dict[str, tuple[str, ...]] = {
    "greeting": (
        "Hello.", "Good morning.", "Hi there.", "Good evening to you.", "Hello, is anybody there?",
        "Hi, it is me again.", "Good day, I am calling about something.", "Hello, this is a customer of yours.",
        "Hi, good afternoon.", "Good morning, hello there.",
    ),
    "complaint": (
        "The {item} is broken.", "My {item} came with a scratch.", "The {item} does not work at all.",
        "This is the wrong {item}.", "The {item} that you sent is damaged.", "Something is wrong with the {item}.",
        "I am not content with the {item}.", "The {item} fell apart after a day.",
        "The {item} came broken and does not work.", "You sent me a damaged {item}.",
    ),
    "order_state": (
        "Where is my {item}?", "When does the {item} come?", "What about my order?", "Has the {item} been sent yet?",
        "When will my order arrive?", "Is the {item} on its way?", "Can you see where my order is?",
        "How long does the {item} still take?",
        "When will the {item} be here?", "Where is my order now?",
    ),
    "cancel": (
        "I want to cancel the {item}.", "Please cancel my order.", "I do not need the {item} any more.",
        "Take the {item} out of my order.", "I would like to send the {item} back.", "Stop the order, please.",
        "Cancel the {item} and give me my money back.", "I changed my mind about the {item}.",
        "I would like to cancel my order.", "Please stop the order of the {item}.",
    ),
    "thanks": (
        "Thank you.", "Thanks a lot.", "Many thanks for your help.", "That was very kind, thank you.",
        "Thanks, that helps.", "Thank you for the quick answer.", "I am grateful for that.", "Thanks for everything.",
        "Thank you so much for everything.", "Many thanks, that was kind.",
    ),
    "goodbye": (
        "Goodbye.", "Bye.", "See you.", "That was all, goodbye.", "Bye for now.", "Until next time.",
        "Have a good day.", "I have to go, bye.",
        "Goodbye, until next time.", "That was all for now, bye.",
    ),
}  # fmt: skip
NEW = 2
"""of each intent's wordings so many, the last, are said by test speakers only"""
FELT: dict[str, tuple[str, ...]] = {
    "neutral": (),
    "calm": ("There is no hurry.", "Take your time."),
    "happy": ("What a lovely day!", "I am so glad!"),
    "sad": ("I am quite down about it.", "It makes me sad."),
    "angry": ("I have had enough!", "This is an outrage!"),
    "fearful": ("I am worried.", "I hope that nothing bad happened."),
    "disgust": ("It is revolting.", "That is disgusting."),
    "surprised": ("I did not expect that!", "Really, I cannot believe it!"),
}
FELT_SHARE = 0.45
"""of turns whose words say the emotion, too"""


def said(intent: str, emotion: str, *, new: bool, rng: np.random.Generator) -> str:
    """A turn's words. `new`: also wordings that no training row has."""
    wordings = SAID[intent] if new else SAID[intent][:-NEW]
    text = wordings[int(rng.integers(len(wordings)))].format(item=ITEMS[int(rng.integers(len(ITEMS)))])
    if FELT[emotion] and rng.random() < FELT_SHARE:
        text += " " + FELT[emotion][int(rng.integers(len(FELT[emotion])))]
    return text


def wording_is_new(text: str, intent: str) -> bool:
    for wording in SAID[intent][-NEW:]:
        head, _, tail = wording.partition("{item}")
        if text.startswith(head) and (not tail or any(text.startswith(head + i + tail) for i in ITEMS)):
            return True
    return False


_OPENINGS: dict[str, tuple[str, ...]] = {
    "neutral": ("",),
    "calm": ("",),
    "happy": ("How nice to hear you in such good spirits! ", "I am glad with you! "),
    "sad": ("I am sorry that it weighs on you. ", "That sounds hard, I am sorry. "),
    "angry": ("I understand that you are angry, and I am sorry. ", "You have every right to be cross. "),
    "fearful": ("Please do not worry. ", "There is no reason to fear. "),
    "disgust": ("I am sorry, that is not how it should be. ", "That must not happen, I apologise. "),
    "surprised": ("I see that this comes unexpected. ", "Yes, really. "),
}
_NO_ORDER = ("Which order is it? Please choose a customer.", "I see no order here. Please choose a customer first.")
_BODIES: dict[str, dict[str, tuple[str, ...]] | tuple[str, ...]] = {
    "greeting": ("Hello! What can I do for you?", "Good day! How can I help?"),
    "thanks": ("You are welcome.", "My pleasure."),
    "goodbye": ("Goodbye, and have a good day.", "Goodbye, until next time."),
    "unsure": ("I am not sure what you want. Could you say it in words?", "What is it about? Please tell me in words."),
    "complaint": {
        "packed": ("The {item} has not left us yet: we check it before it goes.",),
        "shipped": ("The {item} is still on its way: you may refuse it on {day}.",),
        "delayed": ("The {item} is late already; a colleague calls you about it.",),
        "delivered": ("We send you a new {item} and fetch the old one.", "A new {item} goes out to you today."),
    },
    "order_state": {
        "packed": ("The {item} is packed and leaves us tomorrow.", "Your {item} is packed; it comes on {day}."),
        "shipped": ("The {item} is on its way and comes on {day}.", "Your {item} was sent; expect it on {day}."),
        "delayed": ("The {item} is delayed; it should come on {day}.", "Sadly the {item} is late. It comes on {day}."),
        "delivered": ("The {item} was delivered on {day}.", "By our records the {item} came on {day}."),
    },
    "cancel": {
        "packed": ("The {item} has not left us: I cancel it.",),
        "shipped": ("The {item} is on its way; please send it back when it comes on {day}.",),
        "delayed": ("I cancel the {item}; your money comes back.",),
        "delivered": ("You may send the {item} back within two weeks.",),
    },
}


def replies(intent: str, emotion: str, state: str) -> list[str]:
    """Every reply that fits, with its slots. Those that the decoder learns from, and those that it is judged by."""
    bodies = _BODIES[intent]
    if isinstance(bodies, dict):
        bodies = bodies[state] if state != "none" else _NO_ORDER
    return [opening + body for opening, body in product(_OPENINGS[emotion], bodies)]
