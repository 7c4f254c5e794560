"""Who asks: tenants, curators and API keys."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models

from . import tenancy

SLUG = RegexValidator(r"^[a-z0-9](?:[a-z0-9_-]{0,62}[a-z0-9])?$", "lower-case letters, digits, - and _; at most 64")
AT_LEAST_ONE = MinValueValidator(1, "At least 1; to stop a key, revoke it.")


class Tenant(models.Model):
    """A wall: everything below belongs to exactly one tenant."""

    id = models.UUIDField(primary_key=True, editable=False)
    slug = models.CharField(max_length=64, unique=True, validators=[SLUG])
    name = models.CharField(max_length=200)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.name


class CuratorManager(UserManager["User"]):
    """Users live behind the wall: creating and finding one opens its tenant's scope."""

    def create_user(self, username: str, email: str | None = None, password: str | None = None, **fields: Any) -> User:
        return super().create_user(username, email, password, **_with_tenant(fields))

    def create_superuser(
        self, username: str, email: str | None = None, password: str | None = None, **fields: Any
    ) -> User:
        return super().create_superuser(username, email, password, **_with_tenant(fields))

    def get_by_natural_key(self, username: str | None) -> User:
        tenant_id = tenancy.tenant_of_user(username=username)
        if tenant_id is None:
            raise User.DoesNotExist
        with tenancy.scope(tenant_id):
            return self.get(username=username)


def _with_tenant(fields: dict[str, Any]) -> dict[str, Any]:
    if not (fields.get("tenant") or fields.get("tenant_id")):
        fields["tenant_id"] = tenancy.tenant_id_for(tenancy.DEFAULT_TENANT)
    return fields


class User(AbstractUser):
    """A curator: signs in to the admin, belongs to one tenant."""

    tenant = models.ForeignKey(Tenant, on_delete=models.PROTECT, related_name="users")
    objects: ClassVar[CuratorManager] = CuratorManager()

    class Meta(AbstractUser.Meta):
        db_table = "access_user"

    def save(self, *args: Any, **kwargs: Any) -> None:
        with tenancy.scope(self.tenant_id):
            super().save(*args, **kwargs)


class Scope(models.TextChoices):
    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class ApiKey(models.Model):
    """A client's key. Only its SHA-256 is stored; the prefix tells keys apart in lists and logs."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    tenant = models.ForeignKey(Tenant, on_delete=models.CASCADE, related_name="keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, editable=False)
    sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope.choices))
    requests_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[AT_LEAST_ONE])
    tokens_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[AT_LEAST_ONE])
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        verbose_name = "API key"
        verbose_name_plural = "API keys"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
