ALTER TABLE direction RENAME TO smaller;
CREATE TABLE direction (
	vector_id INTEGER NOT NULL,
	layer INTEGER NOT NULL,
	positions INTEGER NOT NULL,
	norm FLOAT NOT NULL,
	residual_norm FLOAT,
	CONSTRAINT pk_direction PRIMARY KEY (vector_id, layer),
	CONSTRAINT ck_direction_layer_integer CHECK (typeof(layer) = 'integer'),
	CONSTRAINT fk_direction_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
);
INSERT INTO direction SELECT * FROM smaller;
DROP TABLE smaller;
CREATE INDEX ix_direction_layer_vector_id ON direction (layer, vector_id);
ALTER TABLE tag RENAME TO smaller;
CREATE TABLE tag (
	vector_id INTEGER NOT NULL,
	tag VARCHAR NOT NULL,
	CONSTRAINT pk_tag PRIMARY KEY (vector_id, tag),
	CONSTRAINT ck_tag_tag_given CHECK (tag <> ''),
	CONSTRAINT fk_tag_vector_id_vector FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
);
INSERT INTO tag SELECT * FROM smaller;
DROP TABLE smaller;
CREATE INDEX ix_tag_tag_vector_id ON tag (tag, vector_id);
