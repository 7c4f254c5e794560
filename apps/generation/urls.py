from django.urls import path

from . import conversation_views, views

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
]
