from django.urls import path

from .views import bulk, collections, documents, jobs, reindexes

urlpatterns = [
    path("collections", collections.CollectionList.as_view()),
    path("collections/<slug:slug>", collections.CollectionDetail.as_view()),
    path("documents", documents.DocumentList.as_view()),
    path("documents/bulk", bulk.DocumentBulk.as_view()),
    path("documents/<uuid:document_id>", documents.DocumentDetail.as_view()),
    path("documents/<uuid:document_id>/versions", documents.VersionList.as_view()),
    path("documents/<uuid:document_id>/versions/<int:version>", documents.VersionDetail.as_view()),
    path("documents/<uuid:document_id>/versions/<int:version>/text", documents.VersionText.as_view()),
    path("documents/<uuid:document_id>/chunks", documents.ChunkList.as_view()),
    path("documents/<uuid:document_id>/file", documents.OriginalFile.as_view()),
    path("jobs", jobs.JobList.as_view()),
    path("jobs/retry", jobs.JobsRetry.as_view()),
    path("jobs/<uuid:job_id>", jobs.JobDetail.as_view()),
    path("jobs/<uuid:job_id>/retry", jobs.JobRetry.as_view()),
    path("jobs/<uuid:job_id>/cancel", jobs.JobCancel.as_view()),
    path("reindexes", reindexes.ReindexList.as_view()),
    path("reindexes/<uuid:run_id>", reindexes.ReindexDetail.as_view()),
    path("reindexes/<uuid:run_id>/pause", reindexes.ReindexPause.as_view()),
    path("reindexes/<uuid:run_id>/resume", reindexes.ReindexResume.as_view()),
    path("reindexes/<uuid:run_id>/cancel", reindexes.ReindexCancel.as_view()),
]
