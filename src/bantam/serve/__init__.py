"""Packed models behind the interfaces that programs already speak: OpenAI's, Anthropic's, Ollama's,
and task endpoints with a page to try them.

`ask` is what all of them come down to; one module an interface turns requests into it and what
happens back into that interface's words.
"""
