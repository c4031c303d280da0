from pathlib import Path

import pytest

from bantam.licences import bound, licence_in

APACHE = "                    Apache License\n                    Version 2.0, January 2004"
MIT = "Copyright\n\nPermission is hereby granted, free of charge, to any person"
GPL3 = "GNU GENERAL PUBLIC LICENSE\nVersion 3\n... GNU Affero General Public License ... GNU Lesser"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "name", "terms"),
    [
        (
            {"a-1.dist-info/METADATA": "Name: a\nLicense-Expression: MIT\nLicense: x\n\nbody"},
            "MIT",
            False,
        ),
        ({"a-1.dist-info/METADATA": "Name: a\nLicense: Apache-2.0\n"}, "Apache-2.0", False),
        ({"PKG-INFO": f"Name: a\nLicense: {MIT.replace(chr(10), chr(10) + ' ')}\n"}, "MIT", False),
        (
            {"PKG-INFO": "License: UNKNOWN\nClassifier: License :: OSI Approved :: BSD License\n"},
            "BSD License",
            False,
        ),
        ({"PKG-INFO": "Name: a\n\nLicense: MIT\n"}, None, False),  # in the body, not a header
        ({"LICENSE": APACHE}, "Apache-2.0", False),
        ({"COPYING": GPL3}, "GPL", False),
        ({"README.md": "---\nlicense: apache-2.0\ntags: [a]\n---\n# x"}, "apache-2.0", False),
        ({"README.md": "# x\n\nlicense: mit\n"}, None, False),
        ({"README.md": "---\nlicense: llama3.2\n---\n"}, "llama3.2", True),
        (
            {"README.md": "---\nlicense: other\nlicense_name: qwen-research\n---\n"},
            "qwen-research",
            True,
        ),
        ({"README.md": "---\nlicense: cc-by-nc-4.0\n---\n"}, "cc-by-nc-4.0", True),
        (
            {"LICENSE.txt": "LLAMA 3.1 COMMUNITY LICENSE AGREEMENT"},
            "Llama 3.1 Community License",
            True,
        ),
        # The packager says MIT of his own code; the weights inside stay under their terms.
        (
            {
                "a-1.dist-info/METADATA": "License: MIT\n",
                "a-1.dist-info/LICENSE": MIT,
                "a/data/GEMMA_TERMS.html": "<title>Gemma Terms of Use</title>",
            },
            "Gemma Terms of Use",
            True,
        ),
        (
            {"NOTICE": "Gemma is provided under and subject to the Gemma Terms of Use found at"},
            "Gemma Terms of Use",
            True,
        ),
        ({"data.csv": "a,b\n"}, None, False),
    ],
)
def test_states_what_the_files_say(
    tmp_path: Path, files: dict[str, str], name: str | None, terms: bool
) -> None:
    licence = licence_in(write(tmp_path, files))
    assert (licence["name"], bound(licence["name"])) == (name, terms)


def test_shows_the_binding_text_and_the_notice_word_for_word(tmp_path: Path) -> None:
    files = {
        "LICENSE": MIT,
        "data/GEMMA_TERMS.html": "Gemma Terms of Use",
        "data/NOTICE.md": "Pass on\n",
    }
    licence = licence_in(write(tmp_path, files))
    assert licence["text_file"] == str(tmp_path / "data/GEMMA_TERMS.html")
    assert licence["notice"] == "Pass on"


def test_survives_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "LICENSE").write_bytes(b"\xff\xfe\x00" * 100_000)
    (tmp_path / "METADATA").write_bytes(bytes(range(256)))
    (tmp_path / "NOTICE").mkdir()
    assert licence_in(tmp_path)["name"] is None
    assert licence_in(tmp_path / "LICENSE")["text_file"] is None
