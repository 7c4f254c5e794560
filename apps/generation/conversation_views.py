"""`/api/v1/conversations`."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from apps.access.views import PAGED, TenantView

from . import conversations
from .models import Conversation
from .serializers import ConversationCreateSerializer, ConversationDetailSerializer, ConversationSerializer


class ConversationList(TenantView):
    scope_needed = "read"
    query_names = {"GET": PAGED}

    @extend_schema(responses=ConversationSerializer(many=True))
    def get(self, request: Request) -> Response:
        """List conversations, newest first."""
        return self.paged(Conversation.objects.all(), conversations.show)

    @extend_schema(request=ConversationCreateSerializer, responses={201: ConversationSerializer})
    def post(self, request: Request) -> Response:
        """Begin a conversation: its id goes into `conversation` of `POST /answers`."""
        title = self.validated(ConversationCreateSerializer)["title"]
        row = conversations.create(tenant_id=self.caller.tenant_id, title=title)
        return Response(conversations.show(row), status=201)


class ConversationDetail(TenantView):
    scope_needed = "read"

    @extend_schema(responses=ConversationDetailSerializer)
    def get(self, request: Request, conversation_id: UUID) -> Response:
        """Get a conversation with its last turns."""
        with self.scope():
            row = conversations.find(conversation_id)
            last = reversed(conversations.turns(row)[: conversations.MOST_TURNS])
            return Response(conversations.show(row) | {"turns": [conversations.show_turn(turn) for turn in last]})

    @extend_schema(responses={204: None})
    def delete(self, request: Request, conversation_id: UUID) -> Response:
        """Remove a conversation with its answers, and all that hangs on them."""
        conversations.remove(tenant_id=self.caller.tenant_id, conversation_id=conversation_id)
        return Response(status=204)
