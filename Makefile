# Environments besides the one of `pip install`.

.PHONY: colossal

# ColossalAI pins torch 2.5.1 and transformers 4.51.3, so it lives in an environment of its own: .venv-colossal
colossal:
	python3 -m venv .venv-colossal
	.venv-colossal/bin/pip install torch==2.5.1
	.venv-colossal/bin/pip install -e '.[colossal,test]'
	.venv-colossal/bin/pytest tests/colossal
