"""The curators' desk: API keys, curators and groups; `CuratorAdmin` is what every page of the desk shares.

Which rows a page shows is not decided here: the request runs in the curator's tenant (middleware.py), and Postgres
hides every other tenant's rows (tenancy.py). What is decided here is what may be done, and how it is shown.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.db import IntegrityError
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.decorators import action, display
from unfold.enums import ActionVariant
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget

from . import keys, tenancy
from .models import ApiKey, Scope, User
from .problems import Problem


class CuratorAdmin(ModelAdmin):
    """A page of the desk: a refusal by a service is a message, not an error page."""

    list_per_page = 25  # on a phone each row is a card of some 300 pixels
    compressed_fields = False  # labels above: rows of several fields stay legible
    show_facets = admin.ShowFacets.NEVER  # a count per filter value is a scan per filter value

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if any("\x00" in value for values in request.GET.lists() for value in (values[0], *values[1])):
            return HttpResponseRedirect(request.path)  # Postgres stores no such text, and refuses to look for it
        return super().changelist_view(request, extra_context)

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except Problem as problem:
            return self.refused(request, problem.sentence)
        except IntegrityError:
            # Somebody was faster, maybe behind another tenant's wall: forms cannot see that.
            return self.refused(request, "That is taken or has just been changed; nothing was saved.")

    def refused(self, request: HttpRequest, sentence: str) -> HttpResponseRedirect:
        messages.error(request, sentence)
        return HttpResponseRedirect(request.get_full_path())

    def tenant_id(self, request: HttpRequest) -> Any:
        return request.user.tenant_id  # type: ignore[union-attr]

    def gone(self, request: HttpRequest, object_id: str) -> HttpResponseRedirect:
        """What Django's own pages answer for an id that the curator cannot see: a message on the index."""
        return self._get_obj_does_not_exist_redirect(request, self.opts, object_id)

    def back_to(self, object_id: object) -> HttpResponse:
        """The end of an action asked for in a dialog: the browser loads the object's page anew."""
        name = f"admin:{self.opts.app_label}_{self.opts.model_name}_change"
        return HttpResponse(headers={"HX-Redirect": reverse(name, args=[object_id])})


class ApiKeyForm(forms.ModelForm):
    scopes = forms.MultipleChoiceField(
        choices=[
            (Scope.READ, "read – search, ask, read documents"),
            (Scope.WRITE, "write – create, change and delete collections and documents, retry and cancel jobs"),
            (Scope.ADMIN, "admin – operate: metrics, details of health checks"),
        ],
        initial=[Scope.READ],
        widget=UnfoldAdminCheckboxSelectMultipleWidget,
        help_text="A larger scope does not include a smaller one.",
    )

    class Meta:
        model = ApiKey
        fields = ("name", "scopes", "requests_per_minute", "tokens_per_minute", "expires_at")
        help_texts = {
            "name": "Who will use it, for you to recognise it by.",
            "requests_per_minute": "Counted per minute of the clock; past it the answer is 429. Empty: no limit.",
            "tokens_per_minute": "That models read and write for it, in any minute. Empty: no limit.",
            "expires_at": "UTC. Empty: until it is revoked.",
        }

    def clean_expires_at(self) -> Any:
        when = self.cleaned_data["expires_at"]
        if when is not None and when <= timezone.now():
            raise ValidationError("This is in the past.")
        return when


@admin.register(ApiKey)
class ApiKeyAdmin(CuratorAdmin):
    """Made once, shown once, then only revoked: a key is never edited or deleted, so that its trace stays."""

    list_display = ("name", "shown_prefix", "shown_scopes", "status", "created_at", "expires_at")
    search_fields = ("name", "prefix")
    ordering = ("-created_at",)
    actions = ("revoke",)
    actions_detail = ("revoke_one",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        if obj is None:
            return ApiKeyForm.Meta.fields
        dates = ("created_at", "expires_at", "revoked_at")
        return ("name", "shown_prefix", "status", "listed_scopes", "requests_per_minute", "tokens_per_minute", *dates)

    def get_form(self, request: HttpRequest, obj: ApiKey | None = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change=change, **kwargs | ({} if obj else {"form": ApiKeyForm}))

    def has_change_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def has_revoke_permission(self, request: HttpRequest, obj: object = None) -> bool:
        return request.user.has_perm("access.change_apikey")

    def get_actions_detail(self, request: HttpRequest, object_id: Any) -> list[Any]:
        key = self.get_object(request, str(object_id))
        return super().get_actions_detail(request, object_id) if key and key.revoked_at is None else []

    @display(description="Key")
    def shown_prefix(self, key: ApiKey) -> str:
        return format_html("<code>{}…</code>", key.prefix)

    @display(description="Scopes", label=True)
    def shown_scopes(self, key: ApiKey) -> list[str]:
        return list(key.scopes)

    @display(description="Scopes")
    def listed_scopes(self, key: ApiKey) -> str:
        return ", ".join(key.scopes)

    @display(description="Status", label={"active": "success", "expired": "warning", "revoked": "danger"})
    def status(self, key: ApiKey) -> str:
        if key.revoked_at is not None:
            return "revoked"
        return "expired" if key.expires_at is not None and key.expires_at <= timezone.now() else "active"

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        made, secret = keys.create_key(tenant_id=self.tenant_id(request), **form.cleaned_data)
        obj.__dict__.update(made.__dict__)
        messages.warning(
            request,
            format_html(
                "The key <strong>{}</strong> is <code style='user-select: all'>{}</code> – copy it now. Only a hash "
                "of it is kept: it cannot be shown again.",
                made.name,
                secret,
            ),
        )

    @action(description="Revoke the selected keys", permissions=["revoke"])
    def revoke(self, request: HttpRequest, chosen: QuerySet[ApiKey]) -> None:
        ending = list(chosen.filter(revoked_at=None))
        for key in ending:
            self._revoke(request, key)
        messages.success(request, f"{len(ending)} of {chosen.count()} keys revoked; the others were already.")

    @action(
        description="Revoke",
        permissions=["revoke"],
        icon="block",
        variant=ActionVariant.DANGER,
        dialog={
            "title": "Revoke this key?",
            "description": "Every request with it is refused from now on. This cannot be undone.",
            "form_class": None,
            "form_submit_text": "Revoke",
        },
    )
    def revoke_one(self, request: HttpRequest, form: forms.Form, object_id: str) -> HttpResponseBase:
        key = self.get_object(request, object_id)
        if key is None:
            return self.gone(request, object_id)
        self._revoke(request, key)
        messages.success(request, f"{key} is revoked.")
        return self.back_to(key.pk)

    def _revoke(self, request: HttpRequest, key: ApiKey) -> None:
        keys.revoke_key(key=key)
        self.log_change(request, key, "Revoked.")


class _FreeUsername(forms.ModelForm):
    """Usernames are unique over all tenants (they come before the tenant at sign-in), which the wall hides from
    Django's own check. That a name is taken is all that a curator learns."""

    def clean_username(self) -> str:
        name: str = self.cleaned_data["username"]
        if name != self.instance.username and tenancy.tenant_of_user(username=name) is not None:
            raise ValidationError("This username cannot be used; choose another.")
        return name


class CuratorCreationForm(_FreeUsername, UserCreationForm):
    is_staff = forms.BooleanField(
        label="May sign in here",
        initial=True,
        required=False,
        help_text="What they may do is set on the next page; a new curator may do nothing yet.",
    )


class CuratorChangeForm(_FreeUsername, UserChangeForm):
    pass


@admin.register(User)
class UserAdmin(DjangoUserAdmin, CuratorAdmin):
    """The curators of one's own tenant. Only superusers hand out permissions, so nobody can raise themselves."""

    form = CuratorChangeForm
    add_form = CuratorCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "first_name", "last_name", "is_staff", "is_superuser", "last_login")
    list_filter = ("is_staff", "is_superuser", "is_active")
    readonly_fields = ("last_login", "date_joined")
    add_fieldsets = (
        (
            None,
            {
                "classes": ("wide",),
                "fields": ("username", "usable_password", "password1", "password2", "is_staff"),
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        if request.user.is_superuser:
            return self.readonly_fields
        return (*self.readonly_fields, "is_superuser", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        below = obj is None or request.user.is_superuser or not obj.is_superuser
        return below and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        below = obj is None or (obj != request.user and (request.user.is_superuser or not obj.is_superuser))
        return below and super().has_delete_permission(request, obj)

    def get_actions(self, request: HttpRequest) -> dict[str, Any]:
        """One at a time: the bulk action does not ask whether a certain curator may be deleted."""
        return {name: entry for name, entry in super().get_actions(request).items() if name != "delete_selected"}

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        if not change:
            obj.tenant_id = self.tenant_id(request)
        super().save_model(request, obj, form, change)


admin.site.unregister(Group)


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, CuratorAdmin):
    """Groups are one set for the whole installation, so that only the operators, who are the superusers of the
    default tenant, change them: anybody else would change what another tenant's curators may do."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return self._operator(request) and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self._operator(request) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Group | None = None) -> bool:
        return self._operator(request) and super().has_delete_permission(request, obj)

    def _operator(self, request: HttpRequest) -> bool:
        default = tenancy.tenant_id_for(tenancy.DEFAULT_TENANT)
        return request.user.is_superuser and self.tenant_id(request) == default

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> tuple[list[Any], dict[str, int], set[str], list]:
        """The groups alone: Django's list would count their members in every tenant."""
        return [str(group) for group in objs], {"groups": len(objs)}, set(), []
