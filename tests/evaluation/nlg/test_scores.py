"""The five scores: against the official scorer's numbers, other libraries, brute force, and closed forms."""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
import sacrebleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from rosa.evaluation import nlg
from rosa.evaluation.nlg import bleu, coco, java, meteor, nist, tokens
from tests.conftest import REAL_DATA

Groups = list[list[str]]

needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="METEOR and the exact tokenizer need Java")
PUB, CAFE = "The Punter is a family-friendly pub near the river.", "A café: £20-25, rated 5 out of 5."

CORPORA: dict[str, tuple[list[str], Groups]] = {
    "several references": (["The Punter is a pub.", "A café near the river"], [[PUB, "A pub."], [CAFE, PUB, "Food."]]),
    "empty hypotheses": (["", "The Punter is a pub.", ""], [[PUB], [PUB, CAFE], [CAFE]]),
    "all hypotheses empty": (["", ""], [[PUB, CAFE], [CAFE]]),
    "one reference": (["A pub near the river.", "A café, £20-25."], [[PUB], [CAFE]]),
    "one or forty-five": (["A pub.", "A café near the river."], [[PUB], [f"{CAFE} Number {i}." for i in range(45)]]),
    "one segment": (["The Punter is a pub."], [[PUB, CAFE]]),
    "upper case": (["THE PUNTER IS A PUB.", "a CAFÉ near the RIVER"], [[PUB.upper(), PUB], [CAFE.upper()]]),
    "signs and accents": (["£20 café é", "5 £ crème"], [["£20-25 café é £", "crème £"], ["£30 é"]]),
    "line separators": (["The\u2028Punter is a pub.", "A café"], [["The Punter\u2028is a pub."], [CAFE, "a\u2028b"]]),
    "longer than its references": ([f"{PUB} {CAFE} {PUB}", CAFE], [["A pub."], ["A café."]]),
    "repeated words": (["the the the the pub pub", "pub"], [["the pub the", "pub pub"], ["a pub"]]),
}
corpora = pytest.mark.parametrize(("hypotheses", "references"), CORPORA.values(), ids=CORPORA)


def draw(seed: int, segments: int = 30) -> tuple[list[str], Groups]:
    """Texts from a small vocabulary, so that many n-grams repeat and match."""
    random_ = random.Random(seed)

    def text(shortest: int) -> str:
        return " ".join(random_.choices("abcdefg", [8, 7, 5, 4, 3, 2, 1], k=random_.randint(shortest, 12)))

    references = [[text(1) for _ in range(random_.choice([1, 1, 2, 5, 45]))] for _ in range(segments)]
    return [text(0) for _ in range(segments)], references


# --- the official scorer ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def official() -> tuple[nlg.Corpus, dict[str, float]]:
    folder = REAL_DATA / "e2e-scorer"
    if not folder.is_dir():
        pytest.skip("the official scorer's example is not beside the project")
    published = json.loads((folder / "scores.json").read_text())
    names = {"bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE_L", "cider": "CIDEr"}
    corpus = nlg.read(folder / "references.txt", folder / "hypotheses.txt")
    return corpus, {key: published[name] for key, name in names.items()}


def numbers(scores: nlg.Scores) -> dict[str, float]:
    return {name: value for name, value in scores.values().items() if value is not None}


def four_decimals(scores: nlg.Scores) -> dict[str, float | None]:
    return {name: value if value is None else round(value, 4) for name, value in scores.values().items()}


@pytest.mark.real
@pytest.mark.slow
@needs_java
def test_the_official_numbers(official: tuple[nlg.Corpus, dict[str, float]]) -> None:
    corpus, expected = official
    found = nlg.score(corpus.hypotheses, corpus.references)
    assert four_decimals(found) == expected
    assert (found.segments, found.references, found.missing) == (547, 4125, {})
    assert found.tokenizer == tokens.STANFORD
    assert {"java", "sacrebleu", "pycocoevalcap"} == set(found.versions)


@pytest.mark.real
def test_the_official_numbers_without_java(
    official: tuple[nlg.Corpus, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    corpus, expected = official
    found = nlg.score(corpus.hypotheses, corpus.references)
    assert four_decimals(found) == expected | {"meteor": None}
    assert found.tokenizer == tokens.PYTHON


# --- other libraries and brute force ---------------------------------------------------------------------------------


ODD: dict[str, tuple[list[str], Groups, float, float]] = {
    "capital accents": (
        ["CAFÉ É près de la rivière, a pub"],
        [["café é PRÈS de la rivière, a pub"]],
        0.587394909470,
        2.113283334295,
    ),
    "no four words": (
        ["A pub.", "Food"],
        [["A pub near the river."], ["Food for the family."]],
        0.122876733807,
        0.042917736760,
    ),
    "nothing matches": (["x y z u v", "w"], [["A pub near the river."], ["Food."]], 0.036565335326, 0.0),
    "three words match": (
        ["a pub near Rome, they said"],
        [["a pub near the river it is"]],
        0.244461511217,
        1.203152109453,
    ),
    "a word after 0": (
        ["0 stars and 0 pubs of 5"],
        [["0 stars and 0 cafes of 5", "0 stars"]],
        0.488923022435,
        2.849695834604,
    ),
    "separators and entities": (
        ["a\x1cb c &QUOT;d&quot; e\u2028f g"],
        [['a b c "d" e f g', "a\x1cb c &quot;d&quot; e f"]],
        0.451801001805,
        2.856746031746,
    ),
    "a broken line": (
        ["a well-\nknown pub near the river"],
        [["a well- known pub near the river"]],
        1.0,
        2.807354922058,
    ),
    "a reference without words": (
        ["a pub"],
        [["a pub near the", "<skipped>"]],
        0.367879441171,
        0.263809997642,
    ),
    "nothing at all": (["", " "], [["A pub."], ["Food."]], 0.0, 0.0),
    "capital À": (["À la carte, À côté"], [["à la carte, à côté", "À la carte"]], 0.451801001805, 2.758270834535),
    "one word each": (
        ["Pub", "É", "food", "À"],
        [["A pub."], ["É"], ["Food", "a food"], ["à la carte"]],
        0.342350395518,
        0.295657941375,
    ),
    "empty lines between": (
        ["", "The Punter is a pub near the river.", "", " "],
        [["A pub."], ["The Punter is a pub by the river.", "A pub."], ["Food."], ["x y"]],
        0.274253868562,
        1.014387701703,
    ),
    "a lone CR": (["a pub\rby the\rriver"], [["a pub near the river", "a pub\rnear"]], 0.302137539736, 2.0),
}
"""Corpora, with BLEU and NIST by the functions of the official mteval-v13a-sig.pl, run in Perl."""


@pytest.mark.parametrize(("hypotheses", "references", "of_bleu", "of_nist"), ODD.values(), ids=ODD)
def test_bleu_and_nist_are_mtevals_whatever_the_text(
    hypotheses: list[str], references: Groups, of_bleu: float, of_nist: float
) -> None:
    assert bleu.score(hypotheses, references) == pytest.approx(of_bleu, abs=1e-11)
    assert nist.score(hypotheses, references) == pytest.approx(of_nist, abs=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_bleu_is_sacrebleus(seed: int) -> None:
    hypotheses, references = draw(seed)
    streams = list(itertools.zip_longest(*references))
    expected = sacrebleu.corpus_bleu(hypotheses, streams, lowercase=True, tokenize="13a").score / 100
    assert 0.01 < expected < 0.99
    assert bleu.score(hypotheses, references) == pytest.approx(expected, rel=1e-12)


def brute_nist(hypotheses: Sequence[str], references: Groups) -> float:
    """The definition, by counting in lists; for texts of lower-case words."""

    def grams(text: str, n: int) -> list[list[str]]:
        words = text.split()
        return [words[i : i + n] for i in range(len(words) - n + 1)]

    texts = [text for group in references for text in group]
    every = {n: [gram for text in texts for gram in grams(text, n)] for n in range(1, 6)}
    total = 0.0
    for n in range(1, 6):
        gain, made = 0.0, 0
        for hypothesis, group in zip(hypotheses, references, strict=True):
            of_hypothesis = grams(hypothesis, n)
            made += len(of_hypothesis)
            for i, gram in enumerate(of_hypothesis):
                earlier = of_hypothesis[:i].count(gram)
                if any(grams(text, n).count(gram) > earlier for text in group):
                    before = len(every[1]) if n == 1 else every[n - 1].count(gram[:-1])
                    gain += math.log2(before / every[n].count(gram))
        total += gain / made if made else 0.0
    ours = sum(len(text.split()) for text in hypotheses)
    theirs = sum(len(text.split()) for text in texts) / (len(texts) / len(references))
    ratio = min(1.0, ours / theirs)
    return total * math.exp(math.log(0.5) * (math.log(ratio) / math.log(1.5)) ** 2) if ratio else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_nist_is_its_definition(seed: int) -> None:
    hypotheses, references = draw(seed, 12)
    assert nist.score(hypotheses, references) == pytest.approx(brute_nist(hypotheses, references), rel=1e-12)
    assert nist.score(hypotheses, references) > 0.5


def test_nist_in_closed_form() -> None:
    text = " ".join("abcdefghijkl")
    # Each of twelve words tells log2(12) bits, and what follows it tells nothing more.
    assert nist.score([text], [[text]]) == pytest.approx(math.log2(12))
    # Eight of them: half the score.
    assert nist.score([text[:15]], [[text]]) == pytest.approx(math.log2(12) / 2)
    # References of twelve words and of their first four: as long as these are on average, so no penalty. The four tell
    # three bits each, the others four; one n-gram of each order goes on where the short reference ends, one more bit.
    assert nist.score([text[:15]], [[text, text[:7]]]) == pytest.approx(3.5 + 1 / 7 + 1 / 6 + 1 / 5 + 1 / 4)
    assert nist.score([""], [[text]]) == 0
    assert nist.score(["x y z"], [[text]]) == 0


def test_nist_lower_cases_ascii_alone() -> None:
    assert nist.score(["THE É"], [["the É"]]) == nist.score(["the É"], [["the É"]])
    assert nist.score(["the é"], [["the É"]]) < nist.score(["the É"], [["the É"]])


def of_coco(hypotheses: Sequence[str], references: Groups) -> dict[str, float]:
    """pycocoevalcap's own classes, on tokens."""
    theirs, ours = dict(enumerate(references)), {i: [text] for i, text in enumerate(hypotheses)}
    return {
        "rouge_l": float(Rouge().compute_score(theirs, ours)[0]),
        "cider": float(Cider().compute_score(theirs, ours)[0]),
    }


@corpora
def test_rouge_and_cider_are_pycocoevalcaps(
    hypotheses: list[str], references: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    tokenized = tokens.tokenize(references, hypotheses)
    found = nlg.score(hypotheses, references).values()
    for name, expected in of_coco(tokenized.hypotheses, tokenized.references).items():
        assert found[name] == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_rouge_and_cider_on_random_tokens(seed: int) -> None:
    hypotheses, references = draw(seed)
    expected = of_coco(hypotheses, references)
    assert coco.rouge_l(hypotheses, references) == pytest.approx(expected["rouge_l"], rel=1e-12)
    assert coco.cider(hypotheses, references) == pytest.approx(expected["cider"], rel=1e-12)
    assert expected["cider"] > 0.1


def test_cider_in_closed_form() -> None:
    # Equal texts of other words in each segment: each of the four cosines is 1, and the scale is 10.
    texts = ["a b c d e", "f g h i j k"]
    assert coco.cider(texts, [[text] for text in texts]) == pytest.approx(10)
    # One of two references is equal, the other has nothing in common.
    assert coco.cider(texts, [[text, "x y z u v w"] for text in texts]) == pytest.approx(5)
    # Words that occur in every segment have weight 0.
    assert coco.cider(["a"], [["a"]]) == 0


@corpora
def test_what_no_score_may_depend_on(
    hypotheses: list[str], references: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Segments in another order, and references within one, give the same scores."""
    monkeypatch.setenv("PATH", "")
    found = numbers(nlg.score(hypotheses, references))
    turned = numbers(nlg.score(hypotheses[::-1], [group[::-1] for group in references[::-1]]))
    assert turned == pytest.approx(found, rel=1e-12)
    assert all(map(math.isfinite, found.values()))


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        ([], [], "no hypotheses"),
        (["a"], [["b"], ["c"]], "1 hypotheses, but references of 2 segments"),
        (["a", "b"], [["b"], []], r"references\[1\] is empty; expected at least one reference"),
        (["a", "b"], [["b"], ["c", " "]], r"references\[1\]\[1\] is empty"),
        (["a"], ["b"], r"references\[0\] is one text"),
        ("a", [["b"]], "hypotheses are one text"),
    ],
)
def test_what_cannot_be_scored_is_refused(hypotheses: list[str], references: Groups, message: str) -> None:
    with pytest.raises(nlg.ScoringError, match=message):
        nlg.score(hypotheses, references)


# --- Java that is absent or broken -----------------------------------------------------------------------------------

FakeJava = Callable[..., None]


@pytest.fixture
def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeJava:
    """Put a ``java`` first on the PATH, with Python code for the tokenizer (None: the real one) and for METEOR."""
    real = shutil.which("java")

    def make(tokenizer: str | None, scorer: str) -> None:
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "java"
        program.write_text(
            f"#!{sys.executable}\nimport os, sys, time\n"
            f"if any('PTBTokenizer' in word for word in sys.argv):\n"
            f"    {tokenizer or f'os.execv({real!r}, [{real!r}, *sys.argv[1:]])'}\n"
            f"else:\n    {scorer}\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))

    return make


def without_java(hypotheses: list[str], references: Groups, monkeypatch: pytest.MonkeyPatch) -> nlg.Scores:
    with monkeypatch.context() as emptied:
        emptied.setenv("PATH", "")
        return nlg.score(hypotheses, references)


def test_without_java_meteor_is_missing_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = without_java(*CORPORA["several references"], monkeypatch)
    assert found.meteor is None
    assert list(found.missing) == ["meteor"]
    assert "no `java` on the PATH" in found.missing["meteor"]
    assert "apt-get install default-jre-headless" in found.missing["meteor"]
    assert "java" not in found.versions
    assert json.loads(json.dumps(found.as_dict())) == found.as_dict()


LONG = "98765.25"
"""Seconds, and a mark to know the sleeping process by."""

BROKEN = {
    "exits with an error": ("print('Error: no JVM here', file=sys.stderr); sys.exit(3)", r"status 3: Error: no JVM"),
    "prints nothing": ("pass", "beginning with ''"),
    "prints garbage": ("print('garbage')", "beginning with 'garbage"),
    "prints no text": ("sys.stdout.buffer.write(bytes([255, 254]))", "not UTF-8"),
    "echoes": ("print(sys.stdin.read(), end='')", r"beginning with .\(The £5"),
    "dies": ("os.kill(os.getpid(), 9)", "ended with status -9"),
    "floods its error stream": ("sys.stderr.write('x' * 10**6); sys.exit(1)", "status 1: xxx"),
    "hangs": ("time.sleep(600)", "gave no result within 1 s"),
    "leaves a child that hangs": (f"os.system('{{sleep}} {LONG}; true')", "gave no result within 1 s"),
}


@pytest.mark.parametrize(("does", "reason"), BROKEN.values(), ids=BROKEN)
def test_broken_java_is_named_and_leaves_the_other_scores(
    does: str, reason: str, fake_java: FakeJava, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "hangs" in request.node.callspec.id:
        monkeypatch.setattr(tokens, "LIMIT", 1.0)
    corpus = CORPORA["several references"]
    expected = without_java(*corpus, monkeypatch)
    fake_java(does.format(sleep=shutil.which("sleep")), "sys.exit('not asked')")
    found = nlg.score(*corpus)
    assert found.values() == expected.values()
    assert found.tokenizer == tokens.PYTHON
    assert found.missing["meteor"].startswith("Java is broken: ")
    assert found.missing["meteor"].endswith("(re)install default-jre-headless")
    assert re.search(reason, found.missing["meteor"])
    left = [process for process in psutil.process_iter(["cmdline"]) if LONG in (process.info["cmdline"] or [])]
    _, alive = psutil.wait_procs(left, timeout=30)  # a killed process takes a moment to go
    assert alive == []


def test_a_java_that_cannot_be_started_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "java"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = nlg.score(*CORPORA["one reference"])
    assert "cannot be started" in found.missing["meteor"]
    assert found.meteor is None


ANSWERING = (
    "[print(*({set}), flush=True) for line in sys.stdin for _ in range("
    "1 if line.startswith('SCORE') else line.count('|||') + 1)]"
)

BROKEN_METEOR = {
    "exits": ("sys.exit('Could not read paraphrases')", "ended|answered '' .*: Could not read paraphrases"),
    "prints garbage": ("print('hello', flush=True); time.sleep(600)", "answered 'hello'"),
    "prints no number": (ANSWERING.format(set="['NaN']"), "answered 'NaN'"),
    "hangs": ("time.sleep(600)", "gave no result within 2.5 s"),
    "hangs at the end": ("[print(1, flush=True) for line in sys.stdin if line[0] == 'S']", "gave no result within"),
    "has another scale": (ANSWERING.format(set="[38.3]"), "answered 38.3 for METEOR"),
}


@needs_java
@pytest.mark.slow
@pytest.mark.parametrize(("does", "reason"), BROKEN_METEOR.values(), ids=BROKEN_METEOR)
def test_broken_meteor_is_named_and_leaves_the_exact_tokens(
    does: str, reason: str, fake_java: FakeJava, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "hangs" in request.node.callspec.id:
        monkeypatch.setattr(meteor, "START_LIMIT", 2.0)
    fake_java(None, does)
    found = nlg.score(*CORPORA["several references"])
    assert found.meteor is None
    assert found.tokenizer == tokens.STANFORD
    assert re.search(reason, found.missing["meteor"])


def test_the_conversation_with_meteor(fake_java: FakeJava, tmp_path: Path) -> None:
    """One request per segment; the returned statistics are sent back unchanged, and the last number is the score."""
    heard = tmp_path / "heard.txt"
    talk = (
        f"[(open({str(heard)!r}, 'a', encoding='utf-8').write(line), print('1.0 %d' % i if line[0] == 'S' else "
        "chr(10).join(['0.9'] * line.count('|||') + ['0.25']), flush=True)) for i, line in enumerate(sys.stdin)]"
    )
    fake_java("sys.exit(1)", talk)
    assert meteor.score(["a café", "", "c ||| d"], [["b", "b b"], ["£ ||| x"], ["e"]]) == 0.25
    assert heard.read_text(encoding="utf-8").splitlines() == [
        "SCORE ||| b ||| b b ||| a café",
        "SCORE ||| £ x ||| ",
        "SCORE ||| e ||| c d",
        "EVAL ||| 1.0 0 ||| 1.0 1 ||| 1.0 2",
    ]


def test_a_program_that_reads_nothing_does_not_block(fake_java: FakeJava) -> None:
    fake_java("time.sleep(600)", "sys.exit(0)")
    with pytest.raises(java.JavaError, match=r"gave no result within 0\.5 s"):
        java.run(["PTBTokenizer"], "x" * 10**6, 0.5)
