from django.urls import path

from . import views

urlpatterns = [
    path("evaluations/sets", views.SetList.as_view()),
    path("evaluations/sets/<uuid:set_id>", views.SetDetail.as_view()),
    path("evaluations/runs", views.RunList.as_view()),
    path("evaluations/runs/<uuid:run_id>", views.RunDetail.as_view()),
    path("spaces/<uuid:space_id>/check", views.SpaceCheck.as_view()),
]
