CREATE SCHEMA "dz";
--> statement-breakpoint
CREATE TABLE "dz"."plans" ("code" text PRIMARY KEY NOT NULL, "title" text NOT NULL);
--> statement-breakpoint
CREATE TABLE "dz"."projects" (
	"tenant_id" bigint NOT NULL,
	"id" bigint NOT NULL,
	"name" text NOT NULL,
	"budget" numeric(12, 2),
	"tags" text[],
	"details" jsonb,
	"ref" uuid,
	"created" timestamp with time zone,
	CONSTRAINT "projects_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
CREATE TABLE "dz"."tasks" (
	"tenant_id" bigint NOT NULL,
	"id" bigint NOT NULL,
	"project_id" bigint NOT NULL,
	"title" text NOT NULL,
	"done" boolean DEFAULT false NOT NULL,
	CONSTRAINT "tasks_pk" PRIMARY KEY("tenant_id","id")
);
--> statement-breakpoint
ALTER TABLE "dz"."tasks" ADD CONSTRAINT "tasks_project" FOREIGN KEY ("tenant_id","project_id") REFERENCES "dz"."projects"("tenant_id","id") ON DELETE cascade ON UPDATE no action;
--> statement-breakpoint
CREATE INDEX "tasks_by_project" ON "dz"."tasks" USING btree ("tenant_id","project_id");
