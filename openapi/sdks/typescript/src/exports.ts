// What both entries export.

export type { Artifacts, DownloadOptions } from './artifacts.js';
export type { Analyzed, AnalyzeOptions, Compressed, CompressOptions, CompressRequest, Searched } from './client.js';
export { JobFailedError, ModelpressError, WebhookVerificationError, type LocalCode } from './errors.js';
export { isOver, type EventOptions, type FollowOptions, type JobEvent } from './follow.js';
export * from './generated.js';
export type { CreateOptions, Jobs, WaitOptions } from './jobs.js';
export type { Datasets, Models, Naming } from './models.js';
export type { Page, PageOptions, Pages } from './pages.js';
export type { Report, ReportFormat, ReportStage, ReportTensor, ReportTotals } from './report.js';
export type { Searches, SearchRequest, SearchWaitOptions } from './searches.js';
export type { FileInput, Hash, Source } from './sources.js';
export type { TransportOptions as ModelpressOptions } from './transport.js';
export type { Sent, UploadOptions, UploadProgress, Uploads } from './uploads.js';
export type { HeaderSource, VerifyOptions, Webhooks } from './webhooks.js';
export type { Bytes, CallOptions, JsonObject, Operation } from './wire.js';
