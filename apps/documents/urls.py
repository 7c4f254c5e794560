from django.urls import path

from .views import bulk, collections, documents, jobs, reindexes, sources

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
    path("sources", sources.SourceList.as_view()),
    path("sources/<uuid:source_id>", sources.SourceDetail.as_view()),
    path("sources/<uuid:source_id>/sync", sources.SourceSync.as_view()),
    path("sources/<uuid:source_id>/cancel", sources.SourceCancel.as_view()),
    path("sources/<uuid:source_id>/runs", sources.SourceRuns.as_view()),
    path("sources/<uuid:source_id>/items", sources.SourceItems.as_view()),
    path("sources/<uuid:source_id>/events", sources.SourceEvents.as_view(), name="source_events"),
    path("reindexes", reindexes.ReindexList.as_view()),
    path("reindexes/<uuid:run_id>", reindexes.ReindexDetail.as_view()),
    path("reindexes/<uuid:run_id>/pause", reindexes.ReindexPause.as_view()),
    path("reindexes/<uuid:run_id>/resume", reindexes.ReindexResume.as_view()),
    path("reindexes/<uuid:run_id>/cancel", reindexes.ReindexCancel.as_view()),
]
