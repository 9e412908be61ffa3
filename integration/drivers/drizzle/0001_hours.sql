ALTER TABLE "dz"."tasks" ADD COLUMN "hours" integer DEFAULT 0 NOT NULL;
--> statement-breakpoint
ALTER TABLE "dz"."tasks" ADD CONSTRAINT "no_debt" CHECK ("dz"."tasks"."hours" >= 0);
