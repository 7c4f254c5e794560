"""Migration operations that ask the engine where a table lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations.base import Operation
from django.db.migrations.operations.models import CreateModel
from django.db.migrations.state import ProjectState

from apps.access.tenancy import wall_sql

from . import engine_for


class CreateShardedModel(CreateModel):
    """CreateModel for a big table: spread by `shard_key`, behind the tenant wall.

    uncompressed: columns of long values that are stored as they are, because compressing them would cost the writer
    more than the disk saves (pglz: about 5 MB/s) and a slice of them could not be read alone. parameters: PostgreSQL's
    storage parameters of its partitions or shards. Foreign keys and indexes follow as deferred SQL, as Django does for
    any model.
    """

    def __init__(
        self,
        name: str,
        fields: Any,
        *,
        shard_key: str = "document_id",
        uncompressed: tuple[str, ...] = (),
        parameters: str = "",
        **options: Any,
    ) -> None:
        super().__init__(name, fields, **options)
        self.shard_key = shard_key
        self.uncompressed = uncompressed
        self.parameters = parameters

    def deconstruct(self) -> tuple[str, Sequence[Any], dict[str, Any]]:
        name, args, kwargs = super().deconstruct()
        own = {"shard_key": self.shard_key, "uncompressed": self.uncompressed, "parameters": self.parameters}
        return name, args, kwargs | own

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        model = to_state.apps.get_model(app_label, self.name)
        if not self.allow_migrate_model(schema_editor.connection.alias, model):
            return
        create_sql, defaults = schema_editor.table_sql(model)
        if defaults:  # the engine's statement has no parameters
            create_sql %= tuple(map(schema_editor.quote_value, defaults))
        table = model._meta.db_table
        storage = [
            f'ALTER TABLE "{table}" ALTER COLUMN "{column}" SET STORAGE EXTERNAL' for column in self.uncompressed
        ]
        engine = engine_for(schema_editor.connection)
        engine.create_sharded(
            schema_editor, create_sql, table, self.shard_key, before_spreading=storage, parameters=self.parameters
        )
        for statement in wall_sql(schema_editor.connection, table, forced=engine.forced_walls):
            schema_editor.execute(statement, params=None)
        schema_editor.deferred_sql.extend(schema_editor._model_indexes_sql(model))  # type: ignore[attr-defined]

    def describe(self) -> str:
        return f"Create sharded model {self.name} by {self.shard_key}"


class PlaceBeside(Operation):
    """Keep small plain tables in one place, but in the same atomic transactions as the sharded ones."""

    reduces_to_sql = True
    reversible = True

    def __init__(self, *tables: str) -> None:
        self.tables = tables

    def state_forwards(self, app_label: str, state: ProjectState) -> None:
        """No model changes."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        engine = engine_for(schema_editor.connection)
        for table in self.tables:
            engine.create_beside(schema_editor, table)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        """The tables are dropped by the operations that made them."""

    def describe(self) -> str:
        return f"Keep {', '.join(self.tables)} beside the sharded tables"
