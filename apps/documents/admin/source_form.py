"""The form of a source: fields of its own for each kind's settings, held to what the kind's connector takes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils.html import format_html
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminPasswordWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from .. import schedules
from ..connectors import folder, s3
from ..connectors.types import SourceError
from ..connectors.web_settings import WebSettings
from ..models import Source
from ..sources import kinds
from .shown import one_line

Kind = Source.Kind
WEB_DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(WebSettings)}
PLAIN = ("name", "enabled", "schedule")
#: The settings of each kind.
OF_KIND = {
    Kind.FOLDER: frozenset(folder.NAMES),
    Kind.S3: frozenset(s3.NAMES),
    Kind.WEB: frozenset(WEB_DEFAULTS),
    Kind.FEED: frozenset(),
}
SETTINGS = frozenset().union(*OF_KIND.values())
#: All of them, as the rows of the form.
ROWS = (
    ("path",),
    ("bucket", "prefix"),
    ("endpoint", "region", "path_style"),
    ("access_key", "secret_key"),
    ("url",),
    ("depth", "max_pages", "delay_seconds"),
    ("user_agent",),
    ("include", "exclude"),
    ("max_bytes", "watch"),
)


class Lines(forms.CharField):
    """A list of texts, one per line."""

    widget = UnfoldAdminTextareaWidget

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(required=False, widget=self.widget({"rows": 3}), **kwargs)

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> Any:
        return [line.strip() for line in (super().to_python(value) or "").split("\n") if line.strip()]

    def run_validators(self, value: Any) -> None:
        for line in value:
            super().run_validators(line)


def _text(
    label: str, help_text: str = "", *, initial: str = "", placeholder: str = "", required: bool = False
) -> forms.CharField:
    """required: by its kind; what is missing of another kind is no error."""
    widget = UnfoldAdminTextInputWidget({"autocomplete": "off", "placeholder": placeholder})
    return forms.CharField(label=label, help_text=help_text, required=required, initial=initial, widget=widget)


def _whole(label: str, help_text: str, initial: int) -> forms.IntegerField:
    widget = UnfoldAdminIntegerFieldWidget()
    return forms.IntegerField(label=label, help_text=help_text, required=False, initial=initial, widget=widget)


def _by_kind(kind: Kind | None, special: Kind, its: str, others: str) -> str:
    """A help text that is another one for a certain kind. While the kind is chosen (None), the page shows the right one
    of both."""
    if kind is not None:
        return its if kind == special else others
    both = "<span x-show=\"kind === '{0}'\">{1}</span><span x-show=\"kind !== '{0}'\">{2}</span>"
    return format_html(both, special.value, its, others)


class SourceForm(forms.ModelForm):
    """What is typed for another kind than the chosen one is ignored. A secret is never shown; empty, it stays."""

    path = _text("Folder", "Of the server; in one of those that the operator has opened for sources.", required=True)
    watch = forms.BooleanField(
        label="Watch",
        help_text="Sync as soon as something in it changes. Not on network drives, which tell nothing: schedule those.",
        required=False,
        initial=True,
        widget=UnfoldBooleanSwitchWidget,
    )
    bucket = _text("Bucket", required=True)
    prefix = _text("Prefix", "Only objects whose names begin with this; empty: all.")  # type: ignore[assignment]
    endpoint = _text("Endpoint", "Empty: AWS.", placeholder="https://s3.example.org")
    region = _text("Region", "Most servers other than AWS take any.", placeholder=s3.REGION)
    path_style = forms.TypedChoiceField(
        label="Address",
        help_text="Where the bucket's name stands in the URL.",
        choices=[("", "As is usual for the endpoint"), ("True", "In the path"), ("False", "In the host's name")],
        coerce=lambda value: str(value) == "True",
        empty_value=None,
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    access_key = _text("Access key", "Empty, as the secret key: read what is public.")
    secret_key = forms.CharField(
        label="Secret key",
        help_text="Kept encrypted, and never shown.",
        required=False,
        widget=UnfoldAdminPasswordWidget({"autocomplete": "new-password"}),
    )
    url = _text(
        "Address", "Of a page to start from, or of a sitemap (.xml, .xml.gz).", placeholder="https://", required=True
    )
    depth = _whole("Depth", "Links from the start page, 0 to 10; a sitemap's pages only.", WEB_DEFAULTS["depth"])
    max_pages = _whole("Pages, at most", "1 to 50000.", WEB_DEFAULTS["max_pages"])
    delay_seconds = forms.FloatField(
        label="Pause in seconds",
        help_text="Between two requests, 0 to 60; longer where robots.txt wants it.",
        required=False,
        initial=WEB_DEFAULTS["delay_seconds"],
        widget=UnfoldAdminTextInputWidget({"inputmode": "decimal"}),
    )
    user_agent = _text("User agent", "What it tells the site that it is.", initial=WEB_DEFAULTS["user_agent"])
    include = Lines(label="Include")
    exclude = Lines(label="Exclude")
    max_bytes = _whole("Bytes, at most", "Of one item; larger ones are not taken. 104857600 is 100 MiB.", s3.MAX_BYTES)

    class Meta:
        model = Source
        fields = ("name", "enabled", "kind", "collection", "schedule")
        help_texts = {
            "name": "For you to recognise it by; once in a collection.",
            "enabled": "Switched off, it is not synced and takes no events. Its documents stay.",
            "kind": "Cannot be changed later.",
            "collection": "That its documents go to. Cannot be changed later.",
            "schedule": "Minute, hour, day of month, month, day of week, in UTC: "
            '"0 3 * * *" is 03:00 every day, "*/15 * * * *" every quarter of an hour.',
        }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        stored = kwargs.get("instance")
        if stored is not None:
            kwargs["initial"] = {**stored.settings, **(kwargs.get("initial") or {})}
        super().__init__(*args, **kwargs)
        kind = None if stored is None else Kind(stored.kind)
        patterns = 'One pattern per line, as "*.md", "reports/**" or "drafts/". Empty: everything.'
        paths = 'One beginning of a path per line, as "/docs/". Empty: everything.'
        self.fields["include"].help_text = _by_kind(kind, Kind.WEB, paths, patterns)
        self.fields["exclude"].help_text = "Written in the same way; wins over what is included."
        if stored is not None and stored.secret is not None:
            self.fields["secret_key"].help_text += " Empty: the stored one stays."
        if "schedule" in self.fields:
            watched = "Empty: by hand, and with Watch when something changes."
            empty = _by_kind(kind, Kind.FOLDER, watched, "Empty: by hand alone.")
            self.fields["schedule"].help_text = format_html("{} {}", self.fields["schedule"].help_text, empty)

    @property
    def kind(self) -> str:
        """The chosen one, or that of the stored source; empty where none was chosen."""
        return self.cleaned_data.get("kind", "") if self.instance._state.adding else self.instance.kind

    def clean_schedule(self) -> str:
        schedule = " ".join(self.cleaned_data["schedule"].split())
        try:
            if schedule:
                schedules.parse(schedule)
        except ValueError as error:
            raise ValidationError(str(error))
        return schedule

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        self._forget_other_kinds(values)
        if self.kind and self.has_new_settings() and not SETTINGS & self.errors.keys():
            self._check_settings()
        self._check_name(values)
        return values

    def _forget_other_kinds(self, values: dict[str, Any]) -> None:
        """Fields that are not seen must neither be refused nor kept."""
        hidden = SETTINGS - (OF_KIND[Kind(self.kind)] if self.kind else frozenset())
        for name in hidden & self.errors.keys():
            del self.errors[name]
        if self.kind == Kind.FEED:
            self.errors.pop("schedule", None)
            values["schedule"] = ""

    def _check_settings(self) -> None:
        before = None if self.instance._state.adding else self.instance
        try:
            kinds.check(self.kind, self.settings(), before=before)
        except SourceError as error:
            name, *line = error.pointer.split("/")[2:] or [""]
            at_fault = f'"{one_line(self.cleaned_data[name][int(line[0])], 60)}": ' if line else ""
            self.add_error(name if name in self.fields else None, at_fault + error.detail)

    def _check_name(self, values: dict[str, Any]) -> None:
        collection = values.get("collection") if self.instance._state.adding else self.instance.collection
        same = Source.objects.filter(collection=collection, name=values.get("name")).exclude(pk=self.instance.pk)
        if collection is not None and same.exists():
            self.add_error("name", "The collection has a source with this name already.")

    def has_new_settings(self) -> bool:
        """Must they be written? Those of a stored source are left alone unless one was changed: a source whose folder
        is away can still be switched off."""
        return self.instance._state.adding or bool(set(self.changed_data) & OF_KIND[Kind(self.kind)])

    def settings(self) -> dict[str, Any]:
        """The settings of the kind, as kinds.check takes them: what is empty is left out."""
        clean = self.cleaned_data
        return {name: clean[name] for name in OF_KIND[Kind(self.kind)] if clean.get(name) not in (None, "")}

    def as_values(self) -> dict[str, Any]:
        """What was changed, as verbs.create and verbs.change take it."""
        clean, adding = self.cleaned_data, self.instance._state.adding
        values = {name: clean[name] for name in PLAIN if name in clean and (adding or name in self.changed_data)}
        return values | ({"settings": self.settings()} if self.has_new_settings() else {})
