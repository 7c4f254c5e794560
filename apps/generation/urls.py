from django.urls import path

from . import conversation_views, query_views, views

urlpatterns = [
    path("answers", views.AnswerList.as_view()),
    path("answers/<uuid:answer_id>", views.AnswerDetail.as_view()),
    path("answers/<uuid:answer_id>/verify", views.AnswerVerification.as_view()),
    path("answers/<uuid:answer_id>/replay", views.AnswerReplay.as_view()),
    path("answers/<uuid:answer_id>/feedback", views.AnswerFeedback.as_view()),
    path("answers/feedback", views.FeedbackList.as_view()),
    path("answers/reports", views.ReportList.as_view()),
    path("answers/reports/<uuid:report_id>", views.ReportDetail.as_view()),
    path("conversations", conversation_views.ConversationList.as_view()),
    path("conversations/<uuid:conversation_id>", conversation_views.ConversationDetail.as_view()),
    path("queries", query_views.QueryList.as_view()),
    path("queries/<uuid:query_id>", query_views.QueryDetail.as_view()),
    path("queries/<uuid:query_id>/events", query_views.QueryEvents.as_view()),
    path("queries/<uuid:query_id>/cancel", query_views.QueryCancel.as_view()),
    path("queries/<uuid:query_id>/retry", query_views.QueryRetry.as_view()),
]
