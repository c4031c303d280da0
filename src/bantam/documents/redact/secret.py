"""What opens doors: keys of well-known services, private keys, credentials in links.

Keys are known by what their makers begin them with; a password in a sentence is not found. What
holds the word EXAMPLE is one of a manual, or of `stand_in`.
"""

import re
from collections.abc import Iterator

_W = "[A-Za-z0-9_-]"
KEY = re.compile(
    "|".join(
        (
            r"A(?:KIA|SIA|BIA|CCA)[A-Z2-7]{16}",  # AWS
            r"gh[pousr]_[A-Za-z0-9]{36,251}",  # GitHub
            r"github_pat_[A-Za-z0-9_]{22,244}",
            rf"gl(?:pat|dt|rt|ptt|soat|cbt|oas)-{_W}{{20,64}}",  # GitLab
            r"xox[abeoprs]-[A-Za-z0-9-]{10,250}",  # Slack
            r"xapp-\d-[A-Za-z0-9-]{20,200}",
            r"hooks\.slack\.com/services/[A-Z0-9]+/[A-Z0-9]+/[A-Za-z0-9]{16,40}",
            rf"AIza{_W}{{35}}",  # Google
            rf"GOCSPX-{_W}{{28}}",
            rf"ya29\.{_W}{{30,400}}",
            r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,247}",  # Stripe
            r"whsec_[A-Za-z0-9+/]{32,64}",
            # OpenAI, Anthropic and others. Names with dashes may begin so, but have no such piece.
            rf"sk-(?={_W}{{0,250}}?(?:[A-Za-z]\d|\d[A-Za-z])){_W}{{20,250}}",
            r"gsk_[A-Za-z0-9]{40,60}",  # Groq
            r"hf_[A-Za-z]{34}",  # Hugging Face
            r"npm_[A-Za-z0-9]{36}",
            rf"pypi-AgE{_W}{{50,250}}",
            rf"SG\.{_W}{{22}}\.{_W}{{43}}",  # SendGrid
            r"dop_v1_[a-f0-9]{64}",  # DigitalOcean
            r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}",  # Shopify
            rf"eyJ{_W}{{8,4000}}\.eyJ{_W}{{8,8000}}\.{_W}{{10,2000}}",  # JSON Web Token
        )
    )
)
HEAD = re.compile(
    r"A(?:KIA|SIA|BIA|CCA)|AIza|eyJ|SG\.|ya29\.|xox[a-z]-|gh[pousr]_|github_pat_|gl[a-z]{2,4}-"
    r"|xapp-|GOCSPX-|[sr]k_(?:live|test)_|whsec_|sk-|gsk_|hf_|npm_|pypi-AgE|dop_v1_|shp[a-z]{2}_"
    r"|hooks\.slack\.com/services/|-----BEGIN "
)
# Signs, one of which stands in every key: looked for in a whole shard at once.
SIGNS = (
    *("AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"),
    *("glpat-", "gldt-", "glrt-", "glptt-", "glsoat-", "glcbt-", "gloas-", "xox", "xapp-"),
    *("hooks.slack", "AIza", "GOCSPX-", "ya29.", "k_live_", "k_test_", "whsec_", "sk-", "gsk_"),
    *("hf_", "npm_", "pypi-AgE", "SG.", "dop_v1_", "shpat_", "shpca_", "shppa_", "shpss_"),
    *(".eyJ", "aws_secret", "AWS_SECRET", "SecretAccessKey", "earer ", "Basic "),
)
# What has no beginning of its own is known by what stands before.
NAMED = re.compile(
    r"(?i:aws_?secret_?access_?key|secretaccesskey)[\"']?\s{0,3}[=:]\s{0,3}[\"']?"
    r"([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
    r"|(?i:authorization)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?i:bearer|basic|token)\s{1,3}"
    r"([A-Za-z0-9._~+/-]{16,4000}=*)"
)

PRIVATE = re.compile(
    r"-----BEGIN (?P<what>(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    # To its end; without one, as long as lines look like a key's.
    r"(?:(?:(?!-----)[\s\S]){1,20000}?-----END (?P=what)-----"
    r"|(?:(?:\\n|\s|[>|])*[A-Za-z0-9+/=:,\- ]{40,}){0,400})"
)

USER = re.compile(r"(?<=://)[^\s/?#@:\"'<>]{0,100}:[^\s/?#@\"'<>]{1,200}(?=@[\w.\[-])")
QUERY = re.compile(
    r"[?&;#](?:amp;)?(?i:access_?token|id_?token|refresh_?token|auth_?token|token|api_?key|"
    r"client_?secret|secret|pass(?:word|wd)?|pwd|signature|sig|session_?id|phpsessid|jsessionid|"
    r"x-amz-(?:signature|credential|security-token))=([^\s&;#\"'<>]{4,4000})"
)
EXAMPLE = "EXAMPLE"


def find_key(text: str) -> Iterator[tuple[int, int]]:
    for match in KEY.finditer(text):
        begins = not text[max(0, match.start() - 1) : match.start()].isalnum()
        if begins and EXAMPLE not in match[0]:
            yield match.span()
    for match in NAMED.finditer(text):
        which = match.lastindex or 0
        if EXAMPLE not in match[which]:
            yield match.span(which)


def find_private_key(text: str) -> Iterator[tuple[int, int]]:
    for match in PRIVATE.finditer(text):
        if EXAMPLE not in match[0]:
            yield match.span()


def find_credentials(text: str) -> Iterator[tuple[int, int]]:
    """Of a link only the user with the password, or the value of the query."""
    for match in USER.finditer(text):
        if EXAMPLE not in match[0]:
            yield match.span()
    for match in QUERY.finditer(text):
        if EXAMPLE not in match[1]:
            yield match.span(1)
