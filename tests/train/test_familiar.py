"""How surprised the base is by texts, against the loss that transformers finds."""

import math
from collections import Counter
from itertools import chain
from pathlib import Path

import pytest
import scipy.stats
import torch

from bantam.formats import gguf
from bantam.formats.tokenizer import Tokenizer
from bantam.nets import load
from bantam.train import familiar, stage
from tiny_nets import twin

TEXTS = ["the picture is sharp", "é", "größe 🙂 и так далее", "", "it broke after " * 80]


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer.from_gguf(gguf.read(tiny_model))


@torch.no_grad()
def test_it_is_the_loss_of_transformers_over_the_entropy_of_scipy(
    tiny_model: Path, tokenizer: Tokenizer
) -> None:
    decoder = load.load(tiny_model)
    theirs = twin(decoder)
    bits, characters, read = 0.0, 0, ""
    for text in TEXTS:
        ids = tokenizer.encode([(text, False)])[:128]
        if len(ids) > 1:
            found = theirs(torch.tensor([ids]), labels=torch.tensor([ids])).loss
            bits += float(found) * (len(ids) - 1) / math.log(2)
            characters += len(tokenizer.decode(ids)) - len(tokenizer.decode(ids[:1]))
            read += tokenizer.decode(ids)
    simple = scipy.stats.entropy(list(Counter(read).values()), base=2)
    share = familiar.surprise(decoder, tokenizer, TEXTS)
    assert share == pytest.approx(bits / characters / simple, rel=1e-4)
    assert familiar.warning(share)  # random weights know nothing


@torch.no_grad()
def test_texts_are_begun_as_the_base_wants_them(tiny_model: Path, tokenizer: Tokenizer) -> None:
    keys = tokenizer.gguf_metadata() | {"tokenizer.ggml.add_bos_token": True}
    begun = Tokenizer(keys, tiny_model)
    decoder = load.load(tiny_model)
    ids = tokenizer.encode([(TEXTS[0], False)])
    whole = torch.tensor([begun.start + ids])
    labels = torch.tensor([[-100, -100, *ids[1:]]])
    loss = float(twin(decoder)(whole, labels=labels).loss) * (len(ids) - 1) / math.log(2)
    read = tokenizer.decode(ids)
    characters = len(read) - len(tokenizer.decode(ids[:1]))
    simple = scipy.stats.entropy(list(Counter(read).values()), base=2)
    share = familiar.surprise(decoder, begun, TEXTS[:1])
    assert share == pytest.approx(loss / characters / simple, rel=1e-4)


def test_a_sample_is_taken_from_all_parts(tiny_model: Path, tokenizer: Tokenizer) -> None:
    decoder = load.load(tiny_model)
    many = list(chain.from_iterable([text] * 64 for text in ("sharp picture", "no money", "yes")))
    share = familiar.surprise(decoder, tokenizer, many)
    assert share == pytest.approx(familiar.surprise(decoder, tokenizer, many[::3]), rel=1e-4)


@pytest.mark.parametrize("texts", [[], [""], ["", "a"], ["aaaaaaaaaa"]])
def test_nothing_to_measure(texts: list[str], tiny_model: Path, tokenizer: Tokenizer) -> None:
    assert familiar.surprise(load.load(tiny_model), tokenizer, texts) == 0
    assert familiar.warning(0.0) is None


def test_the_warning_names_the_mend() -> None:
    assert familiar.warning(familiar.BOUND - 0.01) is None
    told = familiar.warning(0.85)
    assert told is not None
    assert "85%" in told and "base.model" in told


MESSAGES = {
    "English": """My invoice is wrong, you charged me twice
        where is my parcel??? it was due on monday
        i cant log in, it says wrong password
        Can I change the delivery address of order 48213?
        thx for the quick help yesterday!!
        The driver left the box in the rain and everything is wet
        It worked fine until last week, now it freezes
        when will the blue one be back in stock""",
    "German": """Meine Rechnung ist falsch, Sie haben zweimal abgebucht
        wo bleibt mein Paket??? es sollte am Montag da sein
        ich kann mich nicht anmelden, angeblich falsches Passwort
        Kann ich die Lieferadresse der Bestellung 48213 noch ändern?
        danke für die schnelle Hilfe gestern!!
        Der Fahrer hat den Karton im Regen stehen lassen, alles ist nass
        Bis letzte Woche ging alles, jetzt hängt es sich auf
        wann ist die blaue wieder auf Lager""",
    "Greek": """Ο λογαριασμός μου είναι λάθος, με χρεώσατε δύο φορές
        πού είναι το δέμα μου; έπρεπε να έρθει τη Δευτέρα
        δεν μπορώ να συνδεθώ, λέει λάθος κωδικός
        Μπορώ να αλλάξω τη διεύθυνση παράδοσης της παραγγελίας 48213;
        ευχαριστώ για τη γρήγορη βοήθεια χθες!!
        Ο οδηγός άφησε το κουτί στη βροχή και όλα είναι βρεγμένα
        Δούλευε μια χαρά μέχρι την περασμένη εβδομάδα, τώρα κολλάει
        πότε θα υπάρχει ξανά το μπλε""",
    "Chinese": """我的账单有错误，你们扣了两次钱
        我的包裹在哪里？本来星期一就该到了
        我登录不了，提示密码错误
        订单48213还能修改收货地址吗？
        谢谢昨天这么快帮我解决！
        快递员把箱子放在雨里，里面全湿了
        上个星期还好好的，现在总是卡死
        蓝色的什么时候再有货""",
}


@pytest.mark.slow
@pytest.mark.parametrize("language", MESSAGES)
def test_a_base_that_was_made_for_english(language: str, smollm: Path) -> None:
    texts = [line.strip() for line in MESSAGES[language].splitlines()]
    share = familiar.surprise(
        stage.frozen(smollm, 1), Tokenizer.from_gguf(gguf.read(smollm)), texts
    )
    assert (familiar.warning(share) is None) == (language == "English")
