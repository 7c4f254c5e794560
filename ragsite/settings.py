"""The one settings file. Everything an operator may set is read here from the environment, nowhere else.

A bad value fails at start and names its variable (see env.py). docs/settings.md lists them all; a test keeps
that page, the compose file and this file in step.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from . import embedded, env

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = embedded.data_dir()
VERSION = "0.1.0"


def _secret_key() -> str:
    """SECRET_KEY, or one made once and kept in the data directory (mode 0600)."""
    key = env.text("SECRET_KEY")
    if key:
        return key
    path = DATA_DIR / "secret_key"
    try:
        DATA_DIR.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            # Written whole under another name, then linked: a process that starts now reads all of it or nothing.
            with tempfile.NamedTemporaryFile("w", dir=DATA_DIR) as draft:
                draft.write(secrets.token_urlsafe(50))
                draft.flush()
                with contextlib.suppress(FileExistsError):
                    os.link(draft.name, path)
        return path.read_text()
    except OSError as error:
        raise ImproperlyConfigured(
            f"SECRET_KEY is unset and {DATA_DIR} cannot keep one ({error.strerror}); "
            "set SECRET_KEY, or RAGSITE_DATA_DIR to a writable directory"
        )


SECRET_KEY = _secret_key()
DEBUG = env.boolean("DEBUG", False)

# The processes of a data directory add up their metrics in files there (ragsite/health.py). Prometheus' client looks
# for this variable when it is first imported, which is later. Where nothing can be written each counts for itself.
METRICS_DIR = DATA_DIR / "metrics"
with contextlib.suppress(OSError):
    METRICS_DIR.mkdir(parents=True, exist_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(METRICS_DIR)
METRICS_PORT = env.integer("METRICS_PORT", 0, at_least=0)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "*")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
LOG_LEVEL = env.text("LOG_LEVEL", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))

INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "django_prometheus",
    "django_celery_beat",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "apps.access",
    "apps.documents",
    "apps.retrieval",
    "apps.generation",
    "apps.evaluation",
    "ragsite",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "ragsite.telemetry.RequestMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apps.access.middleware.CuratorTenantMiddleware",
    "apps.access.middleware.ReplicaMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "ragsite.urls"
ASGI_APPLICATION = "ragsite.asgi.application"
WSGI_APPLICATION = "ragsite.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "apps" / "documents" / "templates"],  # before unfold's own
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

# --- Postgres: the system of record ---------------------------------------------------------------------------
# Two roles. The owner creates tables and is used by migrations and operator commands only. The application
# connects as a role that owns nothing and is bound by row-level security (apps/access/tenancy.py).
DATABASE_URL = env.text("DATABASE_URL") or embedded.owner_url(DATA_DIR)
DATABASE_APP_ROLE = "ragsite_app"


def _app_database() -> dict[str, object]:
    """DATABASE_APP_URL, else the owner's address with the application role and a password derived from SECRET_KEY.

    `migrate` creates that role with that password, so one URL is enough to point ragsite at a real server.
    """
    url = env.text("DATABASE_APP_URL")
    if url:
        return env.database("DATABASE_APP_URL", url)
    return env.database("DATABASE_URL", DATABASE_URL) | {
        "USER": DATABASE_APP_ROLE,
        "PASSWORD": hmac.new(SECRET_KEY.encode(), b"ragsite_app role", hashlib.sha256).hexdigest(),
    }


DATABASES: dict[str, dict] = {"default": _app_database(), "owner": env.database("DATABASE_URL", DATABASE_URL)}
# Streaming replicas that searches are given to (apps/access/replicas.py).
REPLICAS = [f"replica_{number}" for number, _ in enumerate(env.words("DATABASE_REPLICA_URLS"))]
for _alias, _url in zip(REPLICAS, env.words("DATABASE_REPLICA_URLS"), strict=True):
    DATABASES[_alias] = env.replica("DATABASE_REPLICA_URLS", _url, DATABASES["default"])
REPLICA_MAX_LAG_SECONDS = env.decimal("REPLICA_MAX_LAG_SECONDS", 30.0, at_least=15)
DATABASE_POOL_SIZE = env.integer("DATABASE_POOL_SIZE", 16, at_least=1)
for _alias in ("default", *REPLICAS):
    DATABASES[_alias]["OPTIONS"]["pool"] = {
        "min_size": 1,
        "max_size": DATABASE_POOL_SIZE,
        "timeout": 3 if _alias == "default" else 0.5,  # who waits for a replica goes to the primary
        # The pool waits twice as long before each new attempt; given up early, the next request begins anew, and
        # a server that was away for minutes is used as soon as it is back.
        "reconnect_timeout": 2,
    }
    DATABASES[_alias]["OPTIONS"]["prepare_threshold"] = 0  # named statements (apps/access/sql.py) stay prepared
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# auto: Citus when its extension is in the database, hash partitions on one Postgres otherwise.
SHARDING_ENGINE = env.text("SHARDING_ENGINE", "auto", choices=("auto", "postgres", "citus"))
PARTITIONS = env.integer("PARTITIONS", 1, at_least=1)

# --- Redis: wakes workers and caches; losing all of it loses nothing -------------------------------------------
REDIS_URL = env.text("REDIS_URL") or embedded.redis_url(DATA_DIR)
CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://").replace("?db=", "?virtual_host=")
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "documents.prepare": {"queue": "prepare"},
    "documents.embed": {"queue": "embed"},
    "documents.spaces": {"queue": "embed"},
    "documents.sync": {"queue": "sync"},
    "generation.sweep": {"queue": "default"},  # not behind the answers that it is to wake for
    "generation.*": {"queue": "generate"},
}
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# A lost broker must not stop a request: the row in the ledger is what counts, the message is a wake-up.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_timeout": 5, "socket_connect_timeout": 2, "max_retries": 0}
CELERY_TASK_PUBLISH_RETRY = False

# --- Ingestion ---------------------------------------------------------------------------------------------------
MAX_DOCUMENT_BYTES = env.integer("MAX_DOCUMENT_BYTES", 128 * 2**20, at_least=1)
OCR_LANGUAGES = env.text("OCR_LANGUAGES", "eng")
WRITE_THROUGH_SECONDS = env.decimal("WRITE_THROUGH_SECONDS", 30.0)
JOB_LEASE_SECONDS = env.integer("JOB_LEASE_SECONDS", 30, at_least=1)
JOB_MAX_ATTEMPTS = env.integer("JOB_MAX_ATTEMPTS", 5, at_least=1)
JOB_RETENTION_DAYS = env.integer("JOB_RETENTION_DAYS", 7, at_least=1)
JOBS_MAX_PENDING = env.integer("JOBS_MAX_PENDING", 200_000, at_least=1)
SWEEP_SECONDS = env.integer("SWEEP_SECONDS", 5, at_least=1)
CELERY_BEAT_SCHEDULE = {
    "sweep": {"task": "documents.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": 30}},
    "forget": {"task": "documents.forget", "schedule": 3600, "options": {"expires": 600}},
    "schedules": {"task": "documents.schedules", "schedule": 60, "options": {"expires": 60}},
    "evaluations": {"task": "evaluation.drain", "schedule": SWEEP_SECONDS, "options": {"expires": 30}},
    "lexicons": {"task": "documents.lexicons", "schedule": 60, "options": {"expires": 60}},
    "indexes": {"task": "documents.indexes", "schedule": 600, "options": {"expires": 600}},
    "drift": {"task": "documents.drift", "schedule": 3600, "options": {"expires": 600}},
    "recall": {"task": "retrieval.recall", "schedule": 600, "options": {"expires": 600}},
    "answers": {"task": "generation.forget", "schedule": 3600, "options": {"expires": 600}},
    "queries": {"task": "generation.sweep", "schedule": SWEEP_SECONDS, "options": {"expires": 30}},
    "reports": {"task": "generation.report", "schedule": 3600, "options": {"expires": 600}},
    "fingerprints": {"task": "documents.fingerprints", "schedule": 3600, "options": {"expires": 600}},
}
CELERY_BEAT_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"

# --- Sources -----------------------------------------------------------------------------------------------------
# Whoever may create sources may read these folders. On a laptop, where nobody else has a key, that is every folder
# that is not hidden; on a server none until the operator says which.
SOURCE_FOLDERS = env.words("SOURCE_FOLDERS", "" if env.text("DATABASE_URL") else "/")
# Hosts, host:port and networks that are not public and may be read nevertheless, by sites and buckets.
SOURCE_PRIVATE_HOSTS = env.words("SOURCE_PRIVATE_HOSTS")
# May a bucket without keys be read with the credentials of this machine?
SOURCE_S3_CREDENTIALS = env.boolean("SOURCE_S3_CREDENTIALS", False)

# --- Embedding -----------------------------------------------------------------------------------------------------
EMBEDDING_BACKEND = env.text("EMBEDDING_BACKEND", "local", choices=("local", "openai", "fake"))
EMBEDDING_MODEL = env.text("EMBEDDING_MODEL", "all-MiniLM-L6-v2")
EMBEDDING_DIMENSIONS = env.integer("EMBEDDING_DIMENSIONS", 384, at_least=1)
EMBEDDING_URL = env.url("EMBEDDING_URL")
EMBEDDING_API_KEY = env.text("EMBEDDING_API_KEY")
EMBEDDING_MODEL_DIR = env.path("EMBEDDING_MODEL_DIR", None)
EMBEDDING_CACHE_DIR = env.path("EMBEDDING_CACHE_DIR", DATA_DIR / "models")
EMBEDDING_THREADS = env.integer("EMBEDDING_THREADS", 0)

# --- Search ------------------------------------------------------------------------------------------------------
# Below this many live chunks in a search's collections an exact scan is as fast as the vector index, and complete.
EXACT_SCAN_ROWS = env.integer("EXACT_SCAN_ROWS", 5_000)
# Results that each web process keeps, for at most ten minutes; 0 keeps none.
RESULT_CACHE_MB = env.integer("RESULT_CACHE_MB", 64, at_least=0)
SEARCH_TIMEOUT_SECONDS = env.decimal("SEARCH_TIMEOUT_SECONDS", 10.0)
RERANK_URL = env.url("RERANK_URL")
RERANK_BACKEND = env.text(
    "RERANK_BACKEND", "http" if RERANK_URL else "none", choices=("none", "http", "sentence_transformers", "fake")
)
RERANK_MODEL = env.text("RERANK_MODEL")
RERANK_API_KEY = env.text("RERANK_API_KEY")
RERANK_TIMEOUT_SECONDS = env.decimal("RERANK_TIMEOUT_SECONDS", 5.0)
if RERANK_BACKEND == "http" and not RERANK_URL.endswith(("/rerank", "/score")):
    raise ImproperlyConfigured("RERANK_URL must be set and end in /rerank or /score when RERANK_BACKEND is http")
if RERANK_BACKEND == "sentence_transformers" and not RERANK_MODEL:
    raise ImproperlyConfigured("RERANK_MODEL must be set when RERANK_BACKEND is sentence_transformers")
# What one search may do to be fresh: documents and bytes brought live, and how long it waits for that.
FRESH_DOCUMENTS = env.integer("FRESH_DOCUMENTS", 20)
FRESH_BYTES = env.integer("FRESH_BYTES", 256 * 1024)
FRESH_MILLISECONDS = env.integer("FRESH_MILLISECONDS", 2_000)

# --- Answers -----------------------------------------------------------------------------------------------------
LLM_URL = env.url("LLM_URL")
LLM_BACKEND = env.text("LLM_BACKEND", "openai" if LLM_URL else "extractive", choices=("openai", "extractive", "fake"))
LLM_MODEL = env.text("LLM_MODEL")
LLM_API_KEY = env.text("LLM_API_KEY")
LLM_LARGE_MODEL = env.text("LLM_LARGE_MODEL")
LLM_LARGE_URL = env.url("LLM_LARGE_URL") or (LLM_URL if LLM_LARGE_MODEL else "")
LLM_LARGE_API_KEY = env.text("LLM_LARGE_API_KEY") or (LLM_API_KEY if LLM_LARGE_URL == LLM_URL else "")
LLM_CONNECT_SECONDS = env.decimal("LLM_CONNECT_SECONDS", 5.0, at_least=0.01)
LLM_FIRST_TOKEN_SECONDS = env.decimal("LLM_FIRST_TOKEN_SECONDS", 60.0, at_least=0.01)
LLM_NEXT_TOKEN_SECONDS = env.decimal("LLM_NEXT_TOKEN_SECONDS", 30.0, at_least=0.01)
LLM_TIMEOUT_SECONDS = env.decimal("LLM_TIMEOUT_SECONDS", 600.0, at_least=0.01)
LLM_REQUESTS_PER_MINUTE = env.integer("LLM_REQUESTS_PER_MINUTE", 0, at_least=0)
LLM_TOKENS_PER_MINUTE = env.integer("LLM_TOKENS_PER_MINUTE", 0, at_least=0)
LLM_MAX_CONCURRENT = env.integer("LLM_MAX_CONCURRENT", 4096, at_least=1)
LLM_CONTEXT_TOKENS = env.integer("LLM_CONTEXT_TOKENS", 8192, at_least=2048)
MAX_DAYS = 36_500
# Stored answers, with their replays and feedback; 0 keeps them.
ANSWER_RETENTION_DAYS = env.integer("ANSWER_RETENTION_DAYS", 0, at_least=0, at_most=MAX_DAYS)
# Questions that workers answer: those that have ended are kept so long; others wait so long at most.
QUERY_RETENTION_DAYS = env.integer("QUERY_RETENTION_DAYS", 7, at_least=1, at_most=MAX_DAYS)
QUERY_MAX_WAIT_SECONDS = env.decimal("QUERY_MAX_WAIT_SECONDS", 60.0, at_least=0)
if LLM_BACKEND == "openai" and not LLM_URL:
    raise ImproperlyConfigured("LLM_URL must be set (it ends in /v1) when LLM_BACKEND is openai")
if LLM_LARGE_URL and not LLM_URL:
    raise ImproperlyConfigured("LLM_URL must be set where LLM_LARGE_URL is: the one of a single model is LLM_URL")
if LLM_LARGE_MODEL and not LLM_URL:
    raise ImproperlyConfigured("LLM_URL must be set where LLM_LARGE_MODEL is: the one of a single model is LLM_MODEL")

# --- Web -----------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "access.User"
AUTHENTICATION_BACKENDS = ["apps.access.backends.TenantModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "admin:login"
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
WHITENOISE_USE_FINDERS = True  # no collectstatic step on a laptop
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_DOCUMENT_BYTES * 2  # JSON escapes may double a text; the view checks the text itself
FILE_UPLOAD_MAX_MEMORY_SIZE = 2**20
SECURE_CONTENT_TYPE_NOSNIFF = True
X_FRAME_OPTIONS = "DENY"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["apps.access.authentication.ApiKeyAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["apps.access.permissions.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["apps.access.throttling.KeyThrottle"],
    "DEFAULT_RENDERER_CLASSES": ["apps.access.rendering.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "apps.access.rendering.AlwaysJson",
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_SCHEMA_CLASS": "apps.access.openapi.OperationSchema",
    "EXCEPTION_HANDLER": "apps.access.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "UNAUTHENTICATED_TOKEN": None,
}
API_TAGS = {  # in the order in which they are shown
    "documents": "What is known: documents, their versions and the chunks of each.",
    "collections": "Where documents are kept, and how they are cut and embedded.",
    "search": "Passages, with the exact place where each stands.",
    "answers": "Answers from the documents, every statement with its source.",
    "conversations": "Questions that go on from one another.",
    "queries": "Questions that are answered later, by a worker: asked, followed, cancelled.",
    "jobs": "What is being indexed, and what could not be.",
    "sources": "Folders, buckets, sites and feeds that documents come from.",
    "reindexes": "Documents read and cut anew, after a change of settings or of a parser, or when you ask for it.",
    "spaces": "Embedding models: another one, built beside the one that serves, and promoted without a pause.",
    "evaluations": "How good searches are: labelled queries, and what is found for them.",
    "OpenAI": "The protocol of OpenAI's clients; each collection is a model.",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "ragsite",
    "DESCRIPTION": "Documents in, cited answers out. **Authorize** with an API key, then try any call out: it is real. "
    "Errors are RFC 9457 problem documents with a JSON pointer to each bad field.",
    "VERSION": VERSION,
    "TAGS": [{"name": name, "description": text} for name, text in API_TAGS.items()],
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SERVE_INCLUDE_SCHEMA": False,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": True, "defaultModelsExpandDepth": 0},
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {
        "DocumentState": "apps.documents.models.Document.State",
        "JobState": "apps.documents.models.IngestionJob.State",
        "ConsistencyMode": "apps.documents.models.Collection.Mode",
        "SearchMode": ["hybrid", "dense", "lexical"],
        "Freshness": ["eventual", "bounded", "strong"],
    },
}


def _desk_page(title: str, icon: str, app: str, model: str) -> dict[str, object]:
    """A link in the desk's navigation, for whoever may see its page."""
    return {
        "title": title,
        "icon": icon,
        "link": reverse_lazy(f"admin:{app}_{model}_changelist"),
        "permission": lambda request: any(request.user.has_perm(f"{app}.{act}_{model}") for act in ("view", "change")),
    }


# In the page itself: without one, browsers ask for /favicon.ico.
FAVICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%239810fa'/%3E"
    "%3Cpath d='M8 5v7M3 4q3-1 5 1 2-2 5-1v7q-3-1-5 1-2-2-5-1z' fill='none' stroke='%23fff'/%3E%3C/svg%3E"
)

# On a phone a row of a table is a card, whose lines unfold cuts off at one of text.
WHOLE_LINES = "data:text/css,@media(max-width:1023px){td.flex{height:auto!important;min-height:45px}}"

UNFOLD = {
    "SITE_TITLE": "ragsite",
    "SITE_HEADER": "ragsite",
    "SITE_SYMBOL": "menu_book",
    "SITE_FAVICONS": [{"rel": "icon", "type": "image/svg+xml", "href": FAVICON}],
    "STYLES": [WHOLE_LINES],
    "SITE_URL": "/api/docs/",
    "SHOW_HISTORY": True,
    "DASHBOARD_CALLBACK": "apps.documents.admin.dashboard.dashboard",
    "SIDEBAR": {
        "navigation": [
            {"items": [{"title": "Overview", "icon": "dashboard", "link": reverse_lazy("admin:index")}]},
            {
                "title": "Knowledge",
                "items": [
                    _desk_page("Collections", "folder", "documents", "collection"),
                    _desk_page("Documents", "description", "documents", "document"),
                    _desk_page("Sources", "sync", "documents", "source"),
                    _desk_page("Jobs", "pending_actions", "documents", "ingestionjob"),
                    _desk_page("Embedding spaces", "scatter_plot", "documents", "embeddingspace"),
                    _desk_page("Answers", "forum", "generation", "answer"),
                    _desk_page("Queries", "schedule", "generation", "query"),
                    _desk_page("Weekly reports", "thumb_down", "generation", "weeklyreport"),
                    _desk_page("Quality", "monitoring", "evaluation", "evaluationset"),
                ],
            },
            {
                "title": "Access",
                "items": [
                    _desk_page("API keys", "key", "access", "apikey"),
                    _desk_page("Curators", "person", "access", "user"),
                    _desk_page("Groups", "group", "auth", "group"),
                ],
            },
        ]
    },
}

PROMETHEUS_METRICS_EXPORT_PORT = None
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"request_id": {"()": "ragsite.telemetry.RequestIdFilter"}},
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s [%(request_id)s] %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line", "filters": ["request_id"]}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {name: {"level": "WARNING"} for name in ("httpx", "httpx2", "openai")}
    | {"django.security.RequestDataTooBig": {"level": "CRITICAL"}},  # a client's mistake, with its own answer
}
