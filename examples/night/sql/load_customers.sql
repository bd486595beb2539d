INSERT INTO customers (id, name, region)
VALUES (1, 'Ada', 'north'), (2, 'Blaise', 'south'), (3, 'Cora', 'west'), (4, 'Dennis', 'north'), (5, 'Edsger', 'east');
