"""Outputs name the commit that their weights come from."""

from __future__ import annotations

import dataclasses

import pytest

from sora_cli.config.resolve import resolve_generate
from sora_cli.plugin.manager import get_plugins
from sora_cli.tasks import chosen, plan


def test_the_commit_is_in_the_settings_and_not_in_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    def clip() -> plan.Clip:
        flags = {"prompt": {"prompts": ("a waterfall",)}, "model": {"name": "nano"}}
        [made] = plan.plan_generate(resolve_generate(flags, plugins=get_plugins()), get_plugins()).clips
        return made

    plain, locate = clip(), chosen.locate_weights

    def from_hub(*arguments: object, **more: object) -> object:
        found = locate(*arguments, **more)  # type: ignore[arg-type]
        assert found is not None
        return dataclasses.replace(found, commit="abc123")

    monkeypatch.setattr(chosen, "locate_weights", from_hub)
    fetched = clip()
    assert "commits" not in plain.settings
    assert fetched.settings["commits"] == {"model": "abc123", "vae": "abc123", "text_encoder": "abc123"}
    assert fetched.settings_hash == plain.settings_hash
