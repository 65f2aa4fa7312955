SELECT s.survey_no AS feedback_id,
       s.customer_no AS user_id,
       s.scan_no AS analysis_id,
       a.advice_no AS recommendation_id,
       s.stars AS helpful_rating,
       s.product_stars AS product_satisfaction,
       s.done_percent AS routine_completion_pct,
       CASE s.recommends WHEN 'yes' THEN 1 WHEN 'no' THEN 0 END AS would_recommend,
       a.skin_topics AS conditions_analyzed,
       a.based_on AS rules_applied,
       s.weeks || CASE s.weeks WHEN 1 THEN '_week' ELSE '_weeks' END AS timeframe,
       CAST(substr(s.sent_at, 1, 4) AS INTEGER) - CAST(substr(c.born_on, 1, 4) AS INTEGER) AS age,
       s.sent_at AS created_at,
       c.allows_research AS consent,
       c.country AS country,
       s.channel AS channel
FROM surveys s
LEFT JOIN advice a ON a.advice_no = s.advice_no
LEFT JOIN customers c ON c.customer_no = s.customer_no
